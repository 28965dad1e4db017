"""Which methods and columns tables show, in which order, and what they are called."""

from __future__ import annotations

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.naming import labelled, names_among, titled
from clbench.report.tables.grid import make_view, summary_grid
from clbench.report.write import report_files
from tests.made_up import VALUES, make_result, shifted
from tests.report.formats import read_markdown

RUNS = [
    make_result("lora", values=shifted(-0.1), stored=0),
    make_result("nusa", values=shifted(-0.2), stored=0),
    make_result("gnsp", values=shifted(-0.05), needs=("reference-images",)),
    make_result("zeroshot", values=[VALUES[0]] * 4, trainable=0, stored=0),
]


def summary(runs: list[RunResult], **options: str | None) -> list[list[str]]:
    given = {"columns": None, "sort": None, "preset": None, **options}
    chosen = names_among(given.pop("methods", None), runs)
    files = report_files(runs, view=make_view(chosen, **given))
    return read_markdown(files["summary.md"])


def test_columns_are_chosen_by_key_or_title_in_any_order() -> None:
    assert summary(RUNS, columns="method,last,Avg,BWT,peak-memory")[0] == [
        "Method", "Last", "Avg", "BWT",
    ]  # fmt: skip


def test_sorting_makes_one_list_with_references_above() -> None:
    assert [row[0] for row in summary(RUNS, sort="last")[1:]] == [
        "zeroshot", "gnsp", "lora", "nusa",
    ]  # fmt: skip
    ordered = [row[0] for row in summary(RUNS, sort="method")[1:]]
    assert ordered == ["zeroshot", "gnsp", "lora", "nusa"]
    usual = [row[0] for row in summary(RUNS)[1:]]
    assert usual == ["zeroshot", "Storage-free", "lora", "nusa", "With storage", "gnsp"]


def test_every_table_has_the_same_order() -> None:
    files = report_files(RUNS, view=make_view(None, None, "last", None))
    rows = read_markdown(files["per-task.md"])[1:]
    assert [row[1] for row in rows] == ["zeroshot", "gnsp", "lora", "nusa"] * 3


def test_smaller_costs_come_first_and_unknown_values_last() -> None:
    runs = [
        make_result("a", training_seconds=9.0),
        make_result("b", training_seconds=1.0),
        make_result("c", peak_memory_bytes=1000),
    ]
    view = make_view(None, None, "training", None)
    assert list(view.summary(runs).index)[1:] == ["b", "a", "c"]
    view = make_view(None, None, "peak memory", None)
    assert list(view.summary(runs).index)[1:] == ["c", "a", "b"]


def test_only_chosen_methods_are_rows() -> None:
    rows = summary(RUNS, methods="nusa,gnsp", columns="last")
    assert [row[0] for row in rows[1:] if any(row[1:])] == [
        "zero-shot (before training)", "nusa", "gnsp",
    ]  # fmt: skip
    assert rows[-1] == ["gnsp", rows[-1][1]]


def test_groups_without_a_chosen_method_have_no_tables() -> None:
    runs = [*RUNS, make_result("ewc", order="II")]
    files = report_files(runs, view=make_view({"ewc"}, None, None, None))
    assert {name.split("/")[0] for name in files if "/" in name} == {"mini-II-ViT-B-16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "lats"}, r"unknown column 'lats': did you mean 'last'\? \(valid: .*transfer"),
        ({"sort": "avrage"}, r"unknown column 'avrage': did you mean 'average'\?"),
        ({"preset": "papr"}, r"unknown preset 'papr': did you mean 'paper'\? \(valid: full, paper"),
        ({"preset": "paper", "columns": "last"}, "both choose columns"),
        ({"columns": " , "}, "expected columns, e.g. transfer,last"),
        ({"methods": "nuza"}, r"unknown method among these runs 'nuza': did you mean 'nusa'\?"),
        ({"methods": ","}, "expected names, e.g. nusa,lora"),
    ],
)
def test_mistakes_are_named_with_what_was_meant(options: dict[str, str], message: str) -> None:
    with pytest.raises(ClbenchError, match=message):
        summary(RUNS, **options)


def test_methods_go_by_the_titles_of_their_classes() -> None:
    runs = titled([*RUNS, make_result("theirs")])
    assert [row[0] for row in summary(runs)[1:]] == [
        "Zero-shot CLIP", "Storage-free", "LoRA", "NuSA-CL", "With storage", "GNSP", "theirs",
    ]  # fmt: skip
    assert {run.method.name for run in runs} == {r.method.name for r in RUNS} | {"theirs"}
    assert runs[0].to_json() == RUNS[0].to_json(), "files keep the name"
    files = report_files(runs)
    assert "matrices/nusa-seed0.md" in files
    assert runs[1].method.family == "Low-rank updates and subspaces"


def test_a_title_that_is_another_methods_name_does_not_merge_rows() -> None:
    runs = titled([make_result("lora"), make_result("LoRA", values=shifted(-0.1))])
    rows = summary(runs)
    assert [row[0] for row in rows[-2:]] == ["LoRA", "LoRA (lora)"]


def test_labels_replace_titles() -> None:
    runs = labelled(titled(RUNS), {"nusa": "Ours"})
    assert [row[0] for row in summary(runs, columns="last")][3:5] == ["LoRA", "Ours"]
    for labels, message in (
        ({"nuza": "x"}, "did you mean 'nusa'"),
        ({"nusa": "LoRA"}, "lora, nusa would all be called 'LoRA'"),
        ({"nusa": " "}, "expected a title"),
    ):
        with pytest.raises(ClbenchError, match=message):
            labelled(titled(RUNS), labels)


def test_the_grid_prints_columns_in_the_order_given() -> None:
    view = make_view(None, "forgetting,transfer", None, None)
    grid = summary_grid(view.summary(RUNS), RUNS[0].benchmark.setting, view.columns)
    assert grid.header == ("Method", "Forgetting", "Transfer")


def test_times_that_were_measured_beside_other_runs_are_marked_where_they_are_shown() -> None:
    shared = {"provenance": {"launch": {"launcher": "local", "shared": True}}}
    alone = {"provenance": {"launch": {"launcher": "local", "shared": False}}}
    runs = [
        make_result("lora", 0, training_seconds=9.0, **alone),
        make_result("lora", 1, training_seconds=9.0),
        make_result("nusa", 0, training_seconds=5.0, **alone),
        make_result("nusa", 1, training_seconds=5.0, **shared),
    ]
    text = report_files(runs)["summary.md"]
    assert [row[-1] for row in read_markdown(text)[-2:]] == ["9.0 s", "5.0 s ‡"]
    assert "‡ Times were measured, at least in part" in text
    for other in (
        report_files(runs[:3])["summary.md"],
        report_files(runs)["per-task.md"],
        report_files(runs, view=make_view(None, None, None, "paper"))["summary.md"],
    ):
        assert "‡" not in other
