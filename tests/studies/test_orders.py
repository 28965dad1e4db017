"""Reading the study `orders`, from made-up runs whose variances are known."""

from pathlib import Path

import numpy as np
import pytest

from clbench.report.figures.style import figure_settings
from clbench.studies.answers import orders
from clbench.studies.runs import Run, Runs
from clbench.studies.spread import Variance, pooled_variance
from tests.studies.made_up_runs import make_run

IMAGES = 100
BY_ORDER = {"lora": (0.50, 0.60, 0.70), "nusa": (0.60, 0.70, 0.80)}
BY_SEED = {"lora": (0.50, 0.52, 0.54), "nusa": (0.60, 0.64, 0.62)}


def make_one(folder: Path, method: str, seed: int, order: str, last: float) -> Run:
    """A run of two tasks; after the second, both have the given accuracy."""
    shares = [(0.2, 0.3), (0.9, 0.4), (last, last)]
    rows = [[[i < round(s * IMAGES) for i in range(IMAGES)] for s in row] for row in shares]
    return make_run(folder, method, seed, rows, benchmark__order=order)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = []
    for method in BY_ORDER:
        for i, last in enumerate(BY_ORDER[method]):
            made.append(make_one(tmp_path, method, 0, f"random-{i}", last))
        for seed, last in enumerate(BY_SEED[method]):
            made.append(make_one(tmp_path, method, seed, "alphabetical", last))
    return Runs(made)


def test_every_method_has_its_spread_over_orders_and_seeds(runs: Runs) -> None:
    rows = {row[1]: row for row in orders.table(runs).rows if row[0] == "Last"}
    assert list(rows) == ["lora", "nusa", "all methods", "differences"]
    _, _, mean, over_orders, over_seeds, ratio = rows["lora"]
    assert [round(e.value, 6) for e in (mean, over_orders, over_seeds, ratio)] == [60, 10, 2, 25]
    assert over_orders.low < 10 < over_orders.high
    assert rows["all methods"][2] is None
    assert rows["all methods"][3].value == pytest.approx(10)


def test_differences_are_taken_order_by_order_and_seed_by_seed(runs: Runs) -> None:
    found = orders.numbers(runs)
    # nusa is ten points better in every order, and by 10, 12 and 8 with the seeds.
    assert found["mean last lora-nusa"] == "-10.0 [-10.0, -10.0]"
    assert found["sd last lora-nusa orders"] == "0.0 [0.0, 0.0]"
    assert found["sd last lora-nusa seeds"].startswith("2.0 [")


def test_the_share_of_the_order_is_what_seeds_do_not_explain(runs: Runs) -> None:
    assert orders.numbers(runs)["share last lora"].startswith("96.0 [")
    same = orders.Spread("a", np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]]))
    assert same.share is not None
    assert (same.share.value, same.share.low) == (0.0, 0.0)


def test_the_gain_is_measured_on_the_untrained_model(runs: Runs) -> None:
    rows = {row[:2]: row for row in orders.table(runs).rows}
    assert rows["Transfer, gain", "lora"][2].value == pytest.approx(10.0)
    assert rows["Transfer", "lora"][2].value == pytest.approx(40.0)


def test_published_differences_are_held_against_both_spreads(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"NuSA-CL": 82.8, "LoRA": 79.9, "MiLoRA": 77.4}
    monkeypatch.setattr(orders, "published", lambda _: values)
    found = orders.numbers(runs)
    # The standard deviation of the difference is two points over seeds: four points count.
    assert found["limit last seeds"].startswith("4.0 [")
    assert found["published last pairs"] == "3"
    assert found["published last larger list"] == "NuSA-CL and MiLoRA (5.4)"
    assert found["neighbours last larger"] == "0"
    assert found["here last smaller list"] == "NuSA-CL and LoRA (2.9)"
    assert found["nusa last pairs"] == "2"


def test_published_numbers_are_those_of_methods_that_are_here() -> None:
    found = orders.published("last")
    assert found["NuSA-CL"] == 82.8
    assert "Zero-shot" not in found
    assert not any("release" in name for name in found)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_smoke_run_with_one_seed_has_blank_cells(runs: Runs) -> None:
    few = runs.only(lambda run: run.result.seed == 0)
    rows = {row[1]: row for row in orders.table(few).rows if row[0] == "Last"}
    assert rows["lora"][3].value == pytest.approx(10)
    assert rows["lora"][4:] == (None, None)
    with figure_settings():
        orders.draw(few)


def test_the_figure_has_a_row_per_method_and_kind(runs: Runs) -> None:
    with figure_settings():
        axes = orders.draw(runs).axes
    assert [ax.get_xlabel() for ax in axes] == [f"{t}, SD" for t in orders.METRICS.values()]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels[:2] == ["lora, orders", "lora, seeds"]
    assert len(labels) == 8


def test_columns_that_vary_together_count_once() -> None:
    rng = np.random.default_rng(0)
    column = rng.normal(size=(10, 1))
    assert pooled_variance(np.hstack([column] * 4)).freedom == pytest.approx(9)
    apart = pooled_variance(rng.normal(size=(4000, 4)))
    assert apart.freedom == pytest.approx(4 * 3999, rel=0.01)


def test_intervals_of_deviations_and_ratios_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    inside = [0, 0]
    for _ in range(400):
        a, b = (pooled_variance(rng.normal(size=(n, 1))) for n in (10, 4))
        deviation, ratio = a.deviation(), a.over(b)
        inside[0] += deviation.low < 1 < deviation.high
        inside[1] += ratio.low < 1 < ratio.high
    assert [count / 400 for count in inside] == pytest.approx([0.95, 0.95], abs=0.03)


def test_twice_a_deviation_has_twice_its_interval() -> None:
    once, twice = Variance(4.0, 9).deviation(), Variance(4.0, 9).deviation(2)
    assert (twice.value, twice.low, twice.high) == pytest.approx(
        (2 * once.value, 2 * once.low, 2 * once.high)
    )
