"""Reading the study `rho-scan`, from made-up runs."""

from pathlib import Path

import pytest

from clbench.report.figures.style import figure_settings
from clbench.studies.answers import rho_scan
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

RIGHT, WRONG = [[True] * 4] * 2, [[False] * 4] * 2


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Two shares of the energy at one rank, after two tasks and after all: the second forgets."""
    return Runs(
        [
            make_run(tmp_path, "nusa", 0, rows, method__rank=16, method__rho=rho, first_tasks=tasks)
            for tasks in (2, None)
            for rho, rows in ((0.95, [RIGHT] * 3), (0.8, [RIGHT, RIGHT, WRONG]))
        ]
    )


def test_every_share_has_a_row(runs: Runs) -> None:
    rows = rho_scan.table(runs).rows
    assert [row[:3] for row in rows] == [
        ("2", 16, 0.8),
        ("2", 16, 0.95),
        ("all", 16, 0.8),
        ("all", 16, 0.95),
    ]
    assert [str(row[5]) for row in rows[:2]] == ["0.0 [0.0, 0.0]", "100.0 [100.0, 100.0]"]


def test_the_answer_can_compare_with_the_papers_share(runs: Runs) -> None:
    found = rho_scan.numbers(runs)
    assert found["last 2 r16 0.8"] == "0.0 [0.0, 0.0]"
    assert found["Δlast all r16 0.8"] == "-100.0 [-100.0, -100.0]"
    assert found["Δlast 2 r16 0.95"] == "0.0 [0.0, 0.0]"
    assert found["gain last 2 r16 0.8"] == "-100.0 [-100.0, -100.0]"


def test_the_figure_has_a_panel_per_metric_and_length(runs: Runs) -> None:
    with figure_settings():
        titles = [ax.get_title(loc="left") for ax in rho_scan.draw(runs).axes]
    assert titles == [f"{m}, {n} tasks" for n in (2, "all") for m in rho_scan.METRICS.values()]
