"""Reading the study `saturation`, from made-up runs."""

from pathlib import Path

import numpy as np
import pytest

from clbench.core.results.result import EffectiveRankRecord, RunResult
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import saturation
from clbench.studies.runs import Estimate, Run, Runs
from tests.studies.made_up_runs import make_run


def with_ranks(run: Run) -> Run:
    """Of the text encoder's directions half are left at first, and none after 100 tasks."""
    rows = range(len(run.result.accuracy.values))
    values = {"text": tuple(0.5 + 0.005 * t for t in rows), "vision": (0.75,) * len(rows)}
    ranks = EffectiveRankRecord(energy=0.95, values=values)
    run.result.model_copy(update={"effective_rank": ranks}).save(run.file)
    return Run(run.file, RunResult.load(run.file))


def answers(size: int, keeps: int) -> list[list[list[bool]]]:
    """Half of the images before training; a task is right from its training on, for some tasks."""
    return [
        [[True, j < t <= j + keeps] for j in range(size)]  # the second image is the learned one
        for t in range(size + 1)
    ]


def make_runs(folder: Path, size: int) -> Runs:
    """NuSA-CL keeps every task, LoRA the last ten only and has no known weights."""
    tasks = [f"task {t}" for t in range(size)]
    nusa = with_ranks(make_run(folder, "nusa", 0, answers(size, size), tasks=tasks))
    return Runs([nusa, make_run(folder, "lora", 0, answers(size, 10), tasks=tasks)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of 100 tasks: the studied lengths are 50 and 100."""
    return make_runs(tmp_path_factory.mktemp("runs"), 100)


def test_weights_choose_the_cells_that_they_name() -> None:
    for learned in (50, 100):
        newest = np.argwhere(saturation.newest(100, learned)).tolist()
        assert newest == [[t, t] for t in range(learned - 50, learned)]
        oldest = np.argwhere(saturation.oldest(100, learned)).tolist()
        assert oldest == [[learned - 1, t] for t in range(50)]
    unseen = np.argwhere(saturation.unseen(100, 50)).tolist()
    assert unseen == [[t - 1, t] for t in range(1, 50)]
    assert all(w(100, 50).sum() == pytest.approx(1) for _, w in saturation.MEANS.values())


def test_the_table_has_a_row_per_method_and_length(runs: Runs) -> None:
    table = saturation.table(runs)
    assert [row[:2] for row in table.rows] == [
        ("nusa", 50),
        ("nusa", 100),
        ("lora", 50),
        ("lora", 100),
    ]
    assert table.rows[0][2:4] == (pytest.approx(25.0), 25.0)
    assert table.rows[2][2:4] == (None, None)
    gains = [value for value in table.rows[3][4:] if isinstance(value, Estimate)]
    assert [one.value for one in gains] == pytest.approx([50, 0, 0, 5])


def test_numbers_hold_levels_gains_changes_and_differences(runs: Runs) -> None:
    found = saturation.numbers(runs)
    assert found["left text nusa 0"] == "50.0"
    assert found["left vision nusa 100"] == "25.0"
    assert "left text lora 0" not in found
    expected = {
        "newest nusa 50": "100.0 [",
        "Δoldest lora 50": "+10.0 [",
        "oldest lora 50 to 100": "-10.0 [",
        "oldest lora 100 minus nusa": "-50.0 [",
        "Δunseen nusa 100": "0.0 [0.0, 0.0]",
    }
    assert {name: found[name][: len(text)] for name, text in expected.items()} == expected


def test_the_figure_has_a_panel_for_rank_and_accuracy(runs: Runs) -> None:
    with figure_settings():
        axes = saturation.draw(runs).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[:2] == ["Rank left, text", "Rank left, vision"]
    assert titles[2:] == ["Newest", "Unseen", "Oldest", "All learned"]
    line = axes[0].lines[0]
    assert (line.get_xdata()[-1], line.get_ydata()[-1]) == (100, pytest.approx(0))


def test_a_smoke_run_of_two_tasks_is_read_too(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 2)
    assert [row[:2] for row in saturation.table(runs).rows] == [("nusa", 2), ("lora", 2)]
    with figure_settings():
        saturation.draw(runs)
