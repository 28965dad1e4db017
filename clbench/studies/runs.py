"""The runs of a study: chosen by their settings, and read with intervals."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import read_rows
from clbench.core.results.metrics import Array
from clbench.core.results.result import RunResult
from clbench.report.paired.statistics import (
    Rows,
    bootstrap_interval,
    cell_weights,
    image_contributions,
    image_differences,
)

MEASURED: Final = "measured.json"
"""Where a study keeps what it measured besides runs."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, in percent or percent points.

    >>> print(Estimate(3.14, 2.0, 4.25), Estimate(-3.14, -4.25, -2.0, signed=True))
    3.1 [2.0, 4.2] -3.1 [-4.2, -2.0]
    """

    value: float
    low: float
    high: float
    signed: bool = False

    def __str__(self) -> str:
        value, low, high = (tenths(x, self.signed) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class Run:
    """A run of a study.

    Attributes:
        file: where its result was collected.
        result: what it left behind.
    """

    file: Path
    result: RunResult

    @functools.cached_property
    def rows(self) -> Rows:
        """Which test images were classified correctly."""
        return read_rows(self.file)

    def setting(self, key: str) -> Any:
        """A setting by dotted key; ``method``, ``benchmark`` and ``seed`` are names and number."""
        config = self.result.config
        section, _, rest = key.partition(".")
        if key == "seed":
            return self.result.seed
        if key in ("method", "benchmark"):
            return config[key]["name"]
        if section in ("method", "benchmark"):
            values = config[section]["params" if section == "method" else "options"]
            return _plain(values.get(rest))
        return _plain(config[section][rest] if rest else config.get(key))

    def probe(self, name: str, value: str) -> list[float | None]:
        """What a probe found, by row.

        Raises:
            ClbenchError: the run has no such number.
        """
        try:
            return list(self.result.probes[name].values[value])
        except KeyError:
            raise ClbenchError(f"{self.file} has no {value!r} of the probe {name!r}") from None


class Runs(Sequence[Run]):
    """Some runs, in the order of the grid.

    Args:
        runs: them.
        measured: numbers that the study measured besides runs, by name.
    """

    def __init__(self, runs: Sequence[Run], measured: dict[str, Any] | None = None) -> None:
        self._runs = tuple(runs)
        self.measured = measured or {}

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return self._runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def where(self, **settings: Any) -> Runs:
        """The runs with these settings; dots are written as two underscores.

        ``runs.where(method="nusa", method__rho=0.9)``
        """
        wanted = {key.replace("__", "."): _plain(value) for key, value in settings.items()}
        return self.only(lambda run: all(run.setting(k) == v for k, v in wanted.items()))

    def only(self, wanted: Callable[[Run], bool]) -> Runs:
        """The runs that a function chooses."""
        return Runs([run for run in self._runs if wanted(run)], self.measured)

    def values(self, key: str) -> list[Any]:
        """The different values of a setting: numbers in their order, others as they come."""
        found = list(dict.fromkeys(run.setting(key) for run in self._runs))
        numbers = all(isinstance(value, int | float) for value in found)
        return sorted(found) if numbers else found

    def along(self, key: str) -> list[Runs]:
        """The runs of each value of a setting, in the order of `values`."""
        return [self.where(**{key.replace(".", "__"): value}) for value in self.values(key)]

    def mean(self, metric: str) -> float:
        """A metric of the summary in percent, as the mean over the runs; NaN where undefined."""
        found = [run.result.summary.get(metric) for run in self._require()]
        return 100 * statistics.fmean(np.nan if value is None else value for value in found)

    def probed(self, name: str, value: str, row: int = -1) -> float:
        """What a probe found at a row, as the mean over the runs; NaN where undefined."""
        found = [run.probe(name, value)[row] for run in self._require()]
        return statistics.fmean(np.nan if number is None else number for number in found)

    def probed_after_tasks(self, name: str, value: str) -> float:
        """What a probe found after training, as the mean over runs and rows; NaN if nothing."""
        found = [x for run in self._require() for x in run.probe(name, value)[1:] if x is not None]
        return statistics.fmean(found) if found else np.nan

    def estimate(self, metric: str) -> Estimate:
        """A metric, with an interval over test images."""
        runs = self._require()
        return weighed(runs, None, _weights(runs, metric))

    def gain(self, metric: str) -> Estimate:
        """A metric minus what the untrained model has of it, image by image.

        Raises:
            ClbenchError: the tasks were not tested before training.
        """
        runs = self._require()
        before = [untrained(run) for run in runs]
        return weighed(runs, before, _weights(runs, metric), signed=True)

    def difference(self, other: Runs, metric: str) -> Estimate:
        """This metric minus that of other runs, seed by seed and image by image.

        Raises:
            ClbenchError: the two have no seeds in common, or other tasks.
        """
        seeds = [run.result.seed for run in self]
        pairs = [(run, o) for run in self for o in other if run.result.seed == o.result.seed]
        if not pairs or len(set(seeds)) != len(seeds) or len(pairs) > len(seeds):
            raise ClbenchError(
                "runs to be compared must have one run per seed, and seeds in common"
            )
        runs, others = [run for run, _ in pairs], [run for _, run in pairs]
        weights = _weights([*runs, *others], metric)
        return weighed(runs, [run.rows for run in others], weights, signed=True)

    def contributions(self, weights: Array) -> list[Array]:
        """What each test image adds to a metric, averaged over the runs.

        Args:
            weights: of every cell of rows 1 to T in the metric, see `metric_weights`.

        Returns:
            For each task ``(N_j,)`` fractions; the metric is the sum of their means.
        """
        runs = self._require()
        rows = [run.rows for run in runs]
        tasks = runs[0].result.benchmark.tasks
        return image_contributions(rows, tasks, weights)

    def _require(self) -> tuple[Run, ...]:
        if not self._runs:
            raise ClbenchError("no run of the study has the settings that are asked for")
        return self._runs


def tenths(value: float, signed: bool = False) -> str:
    """A number as tables print it.

    >>> tenths(-0.04), tenths(2.0, signed=True)
    ('0.0', '+2.0')
    """
    text = f"{value:+.1f}" if signed else f"{value:.1f}"
    return "0.0" if float(text) == 0 else text


def metric_weights(result: RunResult, metric: str) -> Array:
    """The weight of every cell of rows 1 to T in a metric that is linear in the accuracies.

    Args:
        result: of the run.
        metric: ``transfer``, ``average``, ``last``, ``learned`` or ``backward_transfer``.

    Returns:
        ``(T, T)``.

    Raises:
        ClbenchError: the benchmark does not define the metric, or it is not linear.
    """
    weights = cell_weights(result.benchmark.setting, result.accuracy.counts)
    if metric not in weights:
        raise ClbenchError(f"there is no interval for {metric!r}: one of {', '.join(weights)}")
    return weights[metric]


def weighed(
    runs: Sequence[Run], against: Sequence[Rows] | None, weights: Array, *, signed: bool = False
) -> Estimate:
    """A weighted sum of cells, or what it is more than that of other rows, image by image.

    Args:
        runs: one per seed, with the same tasks.
        against: other rows for each of them.
        weights: of the cells of rows 1 to T, ``(T, T)``.
        signed: whether it is a difference.
    """
    tasks, rows = runs[0].result.benchmark.tasks, [run.rows for run in runs]
    if against is None:
        parts = image_contributions(rows, tasks, weights)
    else:
        parts = image_differences(rows, against, tasks, weights)
    found = [part for part in parts if part.any()]
    low, high = bootstrap_interval(found)
    value = sum(float(part.mean()) for part in found)
    return Estimate(100 * value, 100 * low, 100 * high, signed=signed)


def _weights(runs: Sequence[Run], metric: str) -> Array:
    """The weights of a metric, for runs that must have the same tasks."""
    tasks = runs[0].result.benchmark.tasks
    if any(run.result.benchmark.tasks != tasks for run in runs):
        raise ClbenchError("runs to be compared must have the same tasks in the same order")
    return metric_weights(runs[0].result, metric)


def untrained(run: Run) -> Rows:
    """Rows in which every row is that of the untrained model."""
    if 0 not in run.rows:
        raise ClbenchError(f"{run.file}: the tasks were not tested before training")
    return dict.fromkeys(run.rows, run.rows[0])


def _plain(value: Any) -> Any:
    """A value that can be compared and be a key: lists as text."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value
