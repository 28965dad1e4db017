"""Numbers from papers: read as they are, marked, and compared only where that means something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clbench import api, config, registry
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.papers.published import (
    deviations,
    name_in_papers,
    papers,
    plain,
    published_numbers,
    published_of,
)
from clbench.report.tables.published import METRICS, published_grid, published_table
from clbench.report.write import write_report

MakeResult = Callable[..., RunResult]
TASKS = ("Aircraft", "StanfordCars")
# Transfer 68.9, Avg (24.4 + 68.9 + 80 + 90) / 4 = 65.8, Last 85.0
VALUES = [[0.243, 0.647], [0.244, 0.689], [0.8, 0.9]]


def mtil(make: MakeResult, method: str = "nusa", **changes: Any) -> RunResult:
    given = {"benchmark": "mtil", "tasks": TASKS, "counts": (3333, 8041), "values": VALUES}
    return make(**{"method": method, **given, **changes})


def as_recipe(_: RunResult) -> None:
    return None


def line(table: pd.DataFrame, metric: str, task: str = "", source: str = "") -> dict[str, Any]:
    chosen = (table["metric"] == metric) & (table["task"] == task)
    chosen &= table["source"].str.contains(source, regex=False)
    (found,) = table[chosen].to_dict("records")
    return found


def test_every_number_is_read() -> None:
    numbers = published_numbers()
    assert len(numbers) > 2000
    assert {n.trust for n in numbers} == {"direct", "second-hand"}
    assert {n.order for n in numbers} >= {"I", "II", "-"}
    for number in numbers:
        assert number.method
        assert number.source
        if number.metric in METRICS:
            assert 0 < number.value <= 100


def test_the_rules_name_only_what_there_is() -> None:
    rules = papers()
    benchmarks = {n.benchmark for n in published_numbers()}
    methods = {n.paper_method for n in published_numbers()}
    assert set(rules["benchmarks"]) <= benchmarks
    assert {r["benchmark"] for r in rules["benchmarks"].values()} <= {*registry.benchmark_names()}
    assert set(rules["methods"]) <= {*registry.method_names()}
    named = {*rules["methods"].values(), *rules["other_splits"]["methods"]}
    named |= set(rules["reference_data"]) | set(rules["decided_by_batch"]["methods"])
    assert set(rules["decided_by_batch"]["benchmarks"]) <= benchmarks
    named |= {m for r in rules["benchmarks"].values() for m in r.get("only", ())}
    assert named <= methods
    for rule in rules["benchmarks"].values():
        assert "never" in rule or rule["tolerance"] in rules["tolerances"]


def test_published_of_recipes_agree_with_the_file() -> None:
    """The numbers that recipes state are those of the file, to one decimal."""
    checked = 0
    for name in registry.method_names():
        results = registry.method_recipe(registry.method(name)).results
        for metric in ("transfer", "average", "last"):
            value = results.get("mtil", {}).get(metric)
            if value is not None:
                found = {
                    round(n.value, 1)
                    for n in published_of(name)
                    if (n.benchmark, n.order, n.metric, n.task) == ("MTIL-full", "I", metric, "")
                }
                assert round(value, 1) in found, (name, metric)
                checked += 1
    assert checked > 8


def test_contradicting_reports_are_contested() -> None:
    found = {
        (n.method, n.value): n.contested
        for n in published_of("moe-adapters")
        if (n.benchmark, n.order, n.metric, n.task) == ("MTIL-full", "I", "average", "")
    }
    assert found[("MoE-Adapters", 76.7)] == (75.4, 77.2)
    assert found[("MoE-Adapters (as printed by DAGR; conflicts)", 75.4)] == (75.4, 77.2)
    nusa = [n for n in published_of("nusa") if n.benchmark == "MTIL-full" and n.order == "I"]
    assert not any(n.contested for n in nusa), "68.6 and 68.71 differ by rounding and seed"
    second_hand = next(n for n in nusa if n.trust == "second-hand")
    assert second_hand.remarks == "second-hand"


def test_unknown_methods_are_named() -> None:
    assert published_of("NuSA-CL") == published_of("nusa")
    with pytest.raises(ClbenchError, match="did you mean 'NuSA-CL'"):
        published_of("NuSA-LC")


def test_differences_and_verdicts_by_hand(make_result: MakeResult) -> None:
    table = published_table([mtil(make_result)], as_recipe)
    first = table[(table["metric"] == "Transfer") & (table["published"] == 68.6)].iloc[0]
    assert (first["measured"], first["difference"]) == (pytest.approx(68.9), 0.3)
    assert (first["tolerance"], first["verdict"]) == (1.0, "within tolerance")
    average = table[(table["metric"] == "Avg") & (table["published"] == 75.1)].iloc[0]
    assert (average["difference"], average["verdict"]) == (-9.3, "outside")
    last = table[(table["metric"] == "Last") & (table["published"] == 82.8)].iloc[0]
    assert (last["difference"], last["verdict"]) == (2.2, "outside")


def test_single_data_sets_have_a_wider_tolerance(make_result: MakeResult) -> None:
    table = published_table([mtil(make_result, "finetune")], as_recipe)
    cars = line(table, "Last", "StanfordCars")
    number = next(
        n.value
        for n in published_of("finetune")
        if (n.order, n.metric, n.task) == ("I", "last", "StanfordCars")
    )
    assert cars["difference"] == pytest.approx(90.0 - round(number, 1))
    assert cars["tolerance"] == 3.0
    grid = published_grid(table)
    assert "Last Cars" in [row[1].text for row in grid.rows], "the papers' abbreviation"
    tasks = (table["task"] != "").to_list()
    assert tasks == sorted(tasks), "whole runs come first"


def test_zero_shot_has_almost_no_tolerance(make_result: MakeResult) -> None:
    frozen = [[0.243, 0.649]] * 3
    table = published_table([mtil(make_result, "zeroshot", values=frozen, trainable=0)], as_recipe)
    aircraft, cars = (line(table, "Zero-shot", task) for task in TASKS)
    assert (aircraft["tolerance"], aircraft["verdict"]) == (0.1, "within tolerance")
    assert (cars["difference"], cars["verdict"]) == (0.2, "outside")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "quick"}, "smoke run"),
        ({"model": "ViT-L-14"}, "other backbone: ViT-L-14 (openai)"),
        ({"weights": "laion"}, "other backbone: ViT-B-16 (laion)"),
        ({"setting": Setting.TASK_HIDDEN}, "other setting: task-hidden, published task-given"),
        ({"options": {"shots": 5}}, "other protocol: shots is 5, in the paper None"),
        ({"order": "random"}, "other task order: random, published I"),
        ({"method": "diki"}, "other split family: the paper uses CoOp's splits"),
        ({"method": "moe-adapters", "benchmark": "mtil-16shot"}, "other split family: 16-shot"),
    ],
)
def test_what_may_not_be_compared_says_why(
    make_result: MakeResult, change: dict[str, Any], reason: str
) -> None:
    table = published_table([mtil(make_result, **change)], as_recipe)
    assert len(table)
    assert table["difference"].isna().all()
    assert table["verdict"].str.startswith("not comparable: ").all()
    assert table["verdict"].str.contains(reason, regex=False).any()


def test_numbers_on_coops_splits_are_compared_with_runs_on_them(make_result: MakeResult) -> None:
    coops = {"options": {"splits": "coop"}, "order": "I, CoOp splits"}
    verdicts = {
        method: set(published_table([mtil(make_result, method, **coops)], as_recipe)["verdict"])
        for method in ("diki", "nusa")
    }
    assert verdicts["diki"] == {
        "not comparable: other decision: the run decides image by image, the paper's code by the "
        "whole test batch"
    }
    assert verdicts["nusa"] == {
        "not comparable: other split family: the run used CoOp's splits, the paper did not"
    }


def test_numbers_of_tasks_that_a_batch_decides_are_marked(make_result: MakeResult) -> None:
    mark = papers()["decided_by_batch"]["remark"]
    marked = {(n.paper_method, n.benchmark) for n in published_numbers() if mark in n.remarks}
    assert {method.partition(" (")[0] for method, _ in marked} == {"MoE-Adapters", "DIKI", "IAP"}
    assert ("MoE-Adapters", "X-TAIL-16shot (10 datasets)") in marked
    assert ("MoE-Adapters", "MTIL-5shot") in marked
    assert not any("CIFAR100" in benchmark for _, benchmark in marked)
    image_by_image = mtil(make_result, "moe-adapters")
    by_batch = image_by_image.model_copy(
        update={"method": image_by_image.method.model_copy(update={"decides_by_batch": True})}
    )
    verdicts = [
        {v for v in published_table([result], as_recipe)["verdict"] if "ODCL" not in v}
        for result in (image_by_image, by_batch)
    ]
    assert verdicts[0] == {f"not comparable: {papers()['decided_by_batch']['reason']}"}
    assert verdicts[1] <= {"within tolerance", "outside"}


def test_x_tail_and_five_shots_have_their_published_rows() -> None:
    found: dict[str, set[str]] = {}
    for number in published_numbers():
        found.setdefault(number.benchmark, set()).add(number.paper_method)
    assert found["X-TAIL-16shot (10 datasets)"] >= {
        *("Zero-shot", "ZSCL", "LwF", "WiSE-FT", "MoE-Adapters", "Primal-RAIL", "Dual-RAIL"),
        *("LADA", "CoDyRA", "MoRAM"),
    }
    assert found["X-TAIL-full (10 datasets)"] >= {"ZSCL", "MoE-Adapters", "Primal-RAIL", "LADA"}
    assert found["MTIL-5shot"] >= {
        *("ZSCL", "MoE-Adapters", "RAIL-Primal", "CoDyRA", "InfLoRA", "LoRA", "MiLoRA", "NuSA-CL"),
        *("ConDU (FT)", "ConDU (LoRA)", "AFA", "PACT"),
    }
    orders = {n.order for n in published_numbers() if n.benchmark.startswith("X-TAIL")}
    assert orders == {"I", "II"}


def test_x_tail_is_compared_with_x_tail(make_result: MakeResult) -> None:
    given = {"benchmark": "xtail-16shot", "options": {"shots": 16}}
    hidden = mtil(make_result, "zscl", **given, setting=Setting.TASK_HIDDEN)
    table = published_table([hidden], as_recipe)
    assert set(table["verdict"]) <= {"within tolerance", "outside"}
    assert (line(table, "Last")["published"], line(table, "Last")["tolerance"]) == (63.4, 2.0)
    shown = published_table([mtil(make_result, "zscl", **given)], as_recipe)
    assert shown["verdict"].str.contains("other setting: task-given").all()


def test_class_incremental_needs_the_published_protocol(make_result: MakeResult) -> None:
    values = [[None, None], [0.9, None], [0.8, 0.7]]
    given = {
        "benchmark": "cifar100-10step",
        "tasks": TASKS,
        "values": values,
        "counts": (100, 100),
        "setting": Setting.CLASS_INCREMENTAL,
    }
    clean = {"class_order": "published", "protocol": "clean"}
    same = {"class_order": "published", "protocol": "published"}
    used = {"reference": "Conceptual Captions"}
    table = published_table([make_result("zscl", options=clean, **given, **used)], as_recipe)
    assert table["verdict"].str.contains("protocol is clean, in the paper published").all()
    table = published_table([make_result("zscl", options=same, **given, **used)], as_recipe)
    assert line(table, "Avg", source="arXiv")["difference"] == pytest.approx(82.5 - 82.2)
    table = published_table([make_result("proof", options=same, **given)], as_recipe)
    assert table["verdict"].str.startswith("not comparable: other ").all()


@pytest.mark.parametrize(
    ("method", "papers_own"),
    [("gnsp", "ImageNet-1k"), ("zscl", "ImageNet-1k, texts: Conceptual Captions")],
)
def test_only_runs_with_the_papers_reference_data_are_compared(
    make_result: MakeResult, method: str, papers_own: str
) -> None:
    faithful = published_table([mtil(make_result, method, reference=papers_own)], as_recipe)
    compared = faithful["difference"].notna()  # others are of another label space
    assert compared[faithful["metric"] == "Avg"].any()
    for used in ("task", "folder:/images", None):
        table = published_table([mtil(make_result, method, reference=used)], as_recipe)
        reason = f"other reference data: {used or 'none'}, in the paper {papers_own}"
        assert (table["verdict"][compared] == f"not comparable: {reason}").all()
        assert table["difference"].isna().all()


def test_real_pairs_are_never_those_that_gift_draws(make_result: MakeResult) -> None:
    table = published_table([mtil(make_result, "gift", reference="ImageNet-1k")], as_recipe)
    assert len(table)
    expected = "not comparable: other reference data: the paper's pairs are images that Stable"
    assert table["verdict"].str.startswith(expected).all()


def test_every_method_with_reference_data_has_a_rule_for_them() -> None:
    rules = {plain(name) for name in papers()["reference_data"]}
    needing = [n for n, cls in registry.methods().items() if "reference-images" in cls.needs]
    assert needing
    assert {name_in_papers(name) for name in needing if published_of(name)} <= rules
    assert set(papers()["published_with"]) <= {*registry.method_names()}


def settled(make: MakeResult, method: str, **changed: Any) -> RunResult:
    """A run on MTIL with the recipe's settings, or some changed."""
    overrides = {key.replace("__", "."): value for key, value in changed.items()}
    settings, _ = config.resolve(method, "mtil", overrides=overrides)
    return make(method).model_copy(update={"config": settings.model_dump(mode="json")})


def test_reference_data_may_lie_anywhere(make_result: MakeResult) -> None:
    run = settled(make_result, "zscl", method__reference="/my", method__captions="/my/texts.tsv")
    assert api.recipe_deviation(run) is None
    other = settled(make_result, "gnsp", method__reference="/my", method__reference_count=10)
    assert api.recipe_deviation(other) == (
        "other settings than the recipe's: method.reference_count"
    )


def test_numbers_of_a_release_are_compared_with_its_switch_only(make_result: MakeResult) -> None:
    assert api.recipe_deviation(settled(make_result, "icarl", method__as_released=True)) is None
    expected = "other settings than the recipe's: method.as_released"
    assert api.recipe_deviation(settled(make_result, "icarl")) == expected
    assert api.recipe_deviation(settled(make_result, "lwf", method__as_released=True)) == expected
    assert api.recipe_deviation(settled(make_result, "lwf")) is None


def test_numbers_of_condu_are_compared_where_the_data_set_tells_the_model(
    make_result: MakeResult,
) -> None:
    by_image = settled(make_result, "condu")
    assert api.recipe_deviation(by_image) == "other settings than the recipe's: method.choose"
    by_name = settled(make_result, "condu", method__choose="dataset")
    assert api.recipe_deviation(by_name) is None
    table = published_table([mtil(make_result, "condu")], as_recipe)
    assert line(table, "Last")["published"] == 87.1


def test_other_settings_than_the_recipes_are_not_compared(make_result: MakeResult) -> None:
    table = published_table([mtil(make_result)], lambda _: "other settings: method.rank")
    assert (table["verdict"] == "not comparable: other settings: method.rank").all()


def test_a_run_knows_how_it_deviates_from_its_recipe(make_result: MakeResult) -> None:
    settings, _ = config.resolve("nusa", "mini", overrides={})
    run = make_result().model_copy(update={"config": settings.model_dump(mode="json")})
    assert api.recipe_deviation(run) is None
    changed = {"method.rank": 3, "train.lr": 0.1}
    settings, _ = config.resolve("nusa", "mini", overrides=changed)
    run = make_result().model_copy(update={"config": settings.model_dump(mode="json")})
    assert api.recipe_deviation(run) == "other settings than the recipe's: method.rank, train.lr"


def test_nothing_published_is_said(make_result: MakeResult, tmp_path: Path) -> None:
    assert published_table([make_result()], as_recipe).empty
    write_report([make_result()], tmp_path, deviation=as_recipe)
    assert "No numbers of these methods" in (tmp_path / "published.md").read_text()


def test_published_tables_are_written(make_result: MakeResult, tmp_path: Path) -> None:
    write_report([mtil(make_result)], tmp_path, deviation=as_recipe)
    assert {p.suffix for p in tmp_path.glob("published.*")} == {".md", ".csv", ".tex", ".html"}
    table = pd.read_csv(tmp_path / "published.csv")
    assert set(table["metric"]) == {"Transfer", "Avg", "Last"}
    assert "second-hand" in (tmp_path / "published.md").read_text()


@pytest.mark.parametrize("entry", papers()["deviations"], ids=lambda entry: entry["text"][:30])
def test_every_deviation_stands_in_the_pages_and_concerns_what_there_is(
    entry: dict[str, Any],
) -> None:
    docs = Path(__file__).parents[3] / "docs"
    methods = entry.get("methods", [])
    own = len(methods) == 1 and methods != ["finetune"]
    page = docs / "methods" / f"{methods[0]}.md" if own else docs / "benchmarks.md"
    assert f"- {entry['text']}" in " ".join(page.read_text().split())
    assert set(methods) <= set(registry.method_names())
    families = {name.partition("-")[0] for name in registry.benchmark_names()}
    assert set(entry.get("benchmarks", [])) <= families


def test_deviations_are_told_of_methods_and_benchmarks_that_have_them() -> None:
    def told(method: str, benchmark: str) -> str:
        return " ".join(deviations(method, benchmark))

    assert "weight decay is 0.01" in told("gnsp", "mini-5shot")
    assert "weight decay is 0.01" not in told("nusa", "mini") + told("gnsp", "mtil")
    assert "`as_released=true` on MTIL" in told("milora", "mtil-5shot")
    assert "underscores" in told("finetune", "cifar100-10step")
    assert "pairs whatever the seed" in told("gnsp", "mtil")
    assert "seed 42" not in told("lora", "mtil")
    assert "Batches are always full" in told("lora", "folder:/x")


def test_a_recipe_is_what_its_deviation_says() -> None:
    for method, benchmark, decay in (
        ("finetune", "mini", 0.01),
        ("gnsp", "mini", 0.01),
        ("finetune", "mtil", 0.0),
        ("gnsp", "mtil", 0.0),
    ):
        assert config.resolve(method, benchmark)[0].train.weight_decay == decay
    variants = {
        name: config.resolve("milora", name)[0].method.params["as_released"]
        for name in ("mtil", "mtil-5shot", "mini", "mini-5shot", "cifar100-10step", "folder:/x")
    }
    assert {name for name, released in variants.items() if released} == {"mtil", "mtil-5shot"}
    train = config.resolve("finetune", "cifar100-50step")[0].train
    assert (train.steps, train.warmup) == (16, 30)
