"""Reading the study `where`, from made-up runs."""

from pathlib import Path

import pytest

from clbench.report.figures.style import figure_settings
from clbench.studies.answers import where
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

COUNT = 20


def images(share: float) -> list[bool]:
    return [i < round(share * COUNT) for i in range(COUNT)]


def make_runs(folder: Path, rates: tuple[float, ...], top: float = 0.5) -> Runs:
    """Two spaces that learn the same; Last is Learned for the tail, and lower for the top."""
    found = []
    for space, kept in (("tail", None), ("top", top)):
        for rate in rates:
            learned = 0.5 + 100 * rate
            first = learned if kept is None else kept
            rows = [[0.5, 0.5], [learned, 0.5], [first, learned]]
            settings = {"method__space": space, "train__lr": rate}
            answers = [[images(x) for x in row] for row in rows]
            found.append(make_run(folder, "nusa", 0, answers, **settings))
    return Runs(found)


def test_spaces_are_compared_where_they_learned_the_same(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, (0.001, 0.004))  # Learned 60 and 90 percent
    found = where.numbers(runs)
    assert [found[f"learned {level}"] for level in where.LEVELS] == ["67.5", "75.0", "82.5"]
    assert found["last tail mid"].startswith("75.0 [")
    assert found["last top mid"].startswith("62.5 [")
    assert found["Δlast tail-top mid"].startswith("+12.5 [")
    assert found["forgetting top mid"] == "25.0"
    assert found["Δforgetting tail-top mid"] == "-25.0"
    assert found["Δtransfer tail-top mid"] == "0.0 [0.0, 0.0]"


def test_single_runs_and_best_rates_have_names(tmp_path: Path) -> None:
    found = where.numbers(make_runs(tmp_path, (0.001, 0.004)))
    assert found["last tail 0.004"].startswith("90.0 [")
    assert (found["lr tail"], found["lr top"]) == ("0.004", "0.004")
    assert found["Δlast tail-top"].startswith("+20.0 [")
    assert found["forgetting top 0.001"] == "10.0"


def test_the_table_holds_runs_and_readings(tmp_path: Path) -> None:
    rows = where.table(make_runs(tmp_path, (0.001, 0.004))).rows
    assert [row[:2] for row in rows[:4]] == [
        ("tail", "0.001"),
        ("tail", "0.004"),
        ("top", "0.001"),
        ("top", "0.004"),
    ]
    assert [(row[0], row[1], row[2]) for row in rows[4:6]] == [
        ("tail", "between", pytest.approx(67.5)),
        ("top", "between", pytest.approx(67.5)),
    ]
    assert len(rows) == 4 + 3 * 2


@pytest.mark.parametrize("rates", [(0.001, 0.004), (0.001,)])
def test_the_figure_shows_three_metrics_also_of_few_runs(
    tmp_path: Path, rates: tuple[float, ...]
) -> None:
    runs = make_runs(tmp_path, rates)
    with figure_settings():
        titles = [ax.get_title(loc="left") for ax in where.draw(runs).axes]
    assert titles == ["Transfer", "Last", "Forgetting"]
    assert len(where.table(runs).rows) >= 2 * len(rates)
