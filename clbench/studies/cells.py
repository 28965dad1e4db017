"""Means over chosen cells of the accuracy matrix, with intervals over test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import CorrectRow
from clbench.core.results.metrics import Array
from clbench.report.paired.statistics import Rows
from clbench.studies.runs import Estimate, Run, Runs, untrained, weighed


def level(runs: Runs, weights: Array) -> Estimate:
    """A weighted sum of cells.

    Args:
        runs: one per seed.
        weights: of the cells of rows 1 to T, ``(T, T)``.

    Raises:
        ClbenchError: there is no run, or the runs have other tasks.
    """
    _require_tasks(runs)
    return weighed(runs, None, weights)


def gain(runs: Runs, weights: Array) -> Estimate:
    """The same, each cell minus the accuracy on its task before training, image by image.

    Raises:
        ClbenchError: as for `level`.
    """
    _require_tasks(runs)
    return weighed(runs, [untrained(run) for run in runs], weights, signed=True)


def difference(runs: Runs, other: Runs, weights: Array) -> Estimate:
    """The same, minus that of other runs, image by image.

    Args:
        runs: one per seed.
        other: one per seed, in the same order of seeds.
        weights: as in `level`.

    Raises:
        ClbenchError: as for `level`, or the two have other seeds or tasks.
    """
    _require_seeds(runs, other)
    return weighed(runs, [run.rows for run in other], weights, signed=True)


def gain_difference(runs: Runs, other: Runs, weights: Array) -> Estimate:
    """What `gain` finds minus what it finds of other runs, image by image.

    The other runs may be tested on the same images in another form.

    Args:
        runs: one per seed.
        other: one per seed, in the same order of seeds.
        weights: as in `level`.

    Raises:
        ClbenchError: as for `difference`.
    """
    _require_seeds(runs, other)
    against = [_above(run.rows[0], their.rows) for run, their in zip(runs, other, strict=True)]
    return weighed(runs, against, weights, signed=True)


def _above(before: CorrectRow, rows: Rows) -> Any:
    """Rows whose difference to those of another run is one of gains.

    Args:
        before: the other run's row before training.
        rows: those of the run itself.
    """
    own = rows[0]
    return {
        t: {task: before[task] * 1.0 + bits - own[task] for task, bits in row.items()}
        for t, row in rows.items()
    }


def _require_seeds(runs: Runs, other: Runs) -> None:
    if [run.result.seed for run in runs] != [run.result.seed for run in other]:
        raise ClbenchError("runs to be compared must have the same seeds")
    _require_tasks([*runs, *other])


def _require_tasks(runs: Sequence[Run]) -> None:
    if len({run.result.benchmark.tasks for run in runs}) != 1:
        raise ClbenchError("the cells of a mean must be those of runs with the same tasks")
