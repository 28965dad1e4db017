"""Means over chosen cells, from made-up runs whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from clbench.core.errors import ClbenchError
from clbench.studies.cells import difference, gain, gain_difference, level
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

RIGHT, WRONG, HALF = [True] * 4, [False] * 4, [True, True, False, False]
LAST = np.array([[0.0, 0.0], [0.5, 0.5]])


@pytest.fixture
def first(tmp_path: Path) -> Runs:
    """Half of each task before training, all of the first and none of the second after it."""
    return Runs([make_run(tmp_path, "nusa", 0, [[HALF, HALF], [RIGHT, HALF], [RIGHT, WRONG]])])


@pytest.fixture
def second(tmp_path: Path) -> Runs:
    """Nothing before training, half of the first after it."""
    return Runs([make_run(tmp_path, "lora", 0, [[WRONG, WRONG], [HALF, WRONG], [HALF, WRONG]])])


def test_a_level_is_the_weighted_sum_of_accuracies(first: Runs) -> None:
    assert str(level(first, LAST)) == "50.0 [50.0, 50.0]"
    assert level(first, np.array([[1.0, 0.0], [0.0, 0.0]])).value == 100


def test_a_gain_is_measured_from_the_row_before_training(first: Runs) -> None:
    found = gain(first, LAST)
    assert found.value == 0  # one task won what the other lost
    assert found.low < 0 < found.high
    assert gain(first, np.array([[0.0, 0.0], [1.0, 0.0]])).value == 50


def test_a_difference_is_that_of_the_same_cells(first: Runs, second: Runs) -> None:
    assert difference(first, second, LAST).value == 25
    assert difference(second, first, LAST).value == -25


def test_gains_are_compared_image_by_image(first: Runs, second: Runs) -> None:
    only_first = np.array([[0.0, 0.0], [1.0, 0.0]])
    # The first run gained on two images, the second on the two others.
    found = gain_difference(first, second, only_first)
    assert found.value == 0
    assert (found.low, found.high) != (0, 0)
    assert gain_difference(first, second, LAST).value == pytest.approx(-25)


def test_nothing_that_changed_is_an_interval_of_nothing(first: Runs) -> None:
    assert str(difference(first, first, LAST)) == "0.0 [0.0, 0.0]"


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, first: Runs) -> None:
    rows = [[HALF, HALF]] * 3
    other_seed = Runs([make_run(tmp_path, "lora", 1, rows)])
    with pytest.raises(ClbenchError, match="same seeds"):
        difference(first, other_seed, LAST)
    other_tasks = Runs([make_run(tmp_path, "lora", 0, rows, tasks=("arrows", "flags"))])
    with pytest.raises(ClbenchError, match="same tasks"):
        gain_difference(first, other_tasks, LAST)
