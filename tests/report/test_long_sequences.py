"""What shows a matrix also shows one of 200 tasks."""

from pathlib import Path

import numpy as np
import pytest

from clbench.core.results.result import RunResult
from clbench.report.figures.matrices import draw_matrices
from clbench.report.figures.style import figure_settings
from clbench.report.run_files import publish
from clbench.report.tables.matrix_csv import read_matrix_csv
from tests.made_up import make_result

TASKS = 200


@pytest.fixture(scope="module")
def result() -> RunResult:
    values = np.random.default_rng(0).integers(0, 9, (TASKS + 1, TASKS)) / 8
    names = tuple(f"digits-{t:03d}" for t in range(1, TASKS + 1))
    return make_result("nusa", 0, values.tolist(), tasks=names, counts=(8,) * TASKS)


def test_the_figure_counts_tasks_in_place_of_naming_them(result: RunResult) -> None:
    with figure_settings():
        figure = draw_matrices([result])
    assert figure is not None
    ax = figure.axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[0] == "1"
    assert labels[-1] == str(TASKS)
    assert len(labels) < 40


def test_files_hold_every_cell_and_are_small_enough_to_be_kept(
    result: RunResult, tmp_path: Path
) -> None:
    result.save(tmp_path / "result.json")
    publish(result, tmp_path)
    assert (tmp_path / "result.json").stat().st_size < 400_000
    assert read_matrix_csv(tmp_path / "matrix.csv").values.shape == (TASKS + 1, TASKS)
    np.testing.assert_array_equal(
        RunResult.load(tmp_path / "result.json").matrix.values, result.matrix.values
    )
