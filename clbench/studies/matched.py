"""Metrics where another one is equal: read off between neighbouring settings, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clbench.core.results.metrics import Array
from clbench.report.paired.statistics import bootstrap_interval
from clbench.studies.runs import Estimate, Runs, metric_weights, tenths

Points = Sequence[Runs]
"""Settings along an axis, such as learning rates: the runs of each, one per seed."""


@dataclass(frozen=True, eq=False)
class Crossing:
    """Where a metric has a given level, on the straight line between two neighbouring settings.

    Attributes:
        first: runs of the one setting.
        second: runs of the other.
        share: how far towards the second, 0 to 1.
        by: the metric that has the level.
    """

    first: Runs
    second: Runs
    share: float
    by: str

    def plain(self, metric: str) -> float:
        """Any metric of the summary there, in percent."""
        a, b = self.first.mean(metric), self.second.mean(metric)
        return a + self.share * (b - a)

    def estimate(self, metric: str) -> Estimate:
        """A metric there, with an interval over test images."""
        return _estimate(self.plain(metric), self._images(metric), signed=False)

    def difference(self, other: Crossing, metric: str) -> Estimate:
        """The metric here minus that at a crossing of the same level elsewhere."""
        pairs = zip(self._images(metric), other._images(metric), strict=True)
        value = self.plain(metric) - other.plain(metric)
        return _estimate(value, [a - b for a, b in pairs], signed=True)

    def _images(self, metric: str) -> list[Array]:
        """What each test image adds to the metric there, up to a constant.

        Other images would move the level's place, too: to first order, by a change of the metric
        `by` at the place, times the slope of the one metric against the other.
        """
        rise = self.second.mean(self.by) - self.first.mean(self.by)
        slope = (self.second.mean(metric) - self.first.mean(metric)) / rise
        result = self.first[0].result
        weights = metric_weights(result, metric) - slope * metric_weights(result, self.by)
        first, second = (runs.contributions(weights) for runs in (self.first, self.second))
        return [a + self.share * (b - a) for a, b in zip(first, second, strict=True)]


def find_crossing(points: Points, level: float, by: str = "learned") -> Crossing | None:
    """Where a metric reaches a level on its way up to its highest value; None if nowhere.

    What lies beyond, such as learning rates at which training falls apart, does not count.

    Args:
        points: settings in the order of the axis.
        level: in percent.
        by: the metric.
    """
    values = _rising(points, by)
    for i, (a, b) in enumerate(itertools.pairwise(values)):
        if a != b and min(a, b) <= level <= max(a, b):
            return Crossing(points[i], points[i + 1], (level - a) / (b - a), by)
    return None


def common_levels(
    axes: Sequence[Points], shares: Sequence[float] = (0.25, 0.5, 0.75), by: str = "learned"
) -> list[float]:
    """Levels of a metric that all axes reach on its way up; none where their ranges do not meet.

    Args:
        axes: each with settings of its own.
        shares: where the levels stand between the ends of the common range.
        by: the metric.

    Returns:
        In percent.
    """
    values = [_rising(points, by) for points in axes]
    low, high = max(map(min, values)), min(map(max, values))
    return [low + share * (high - low) for share in shares] if low < high else []


def at_equal_learned(points: Points, other: Points, name: str) -> dict[str, str]:
    """Numbers of an answer: metrics minus those of others, in the middle of what both learned.

    Args:
        points: settings along an axis.
        other: those to compare with.
        name: what the numbers are called: ``=learned NAME``, ``=last NAME``, ...

    Returns:
        Empty where nothing is common.
    """
    found = {}
    for level in common_levels((points, other), (0.5,)):
        first, second = (find_crossing(axis, level) for axis in (points, other))
        if first is None or second is None:
            continue
        found[f"=learned {name}"] = tenths(level)
        for metric in ("transfer", "average", "last"):
            found[f"={metric} {name}"] = str(first.difference(second, metric))
        forgetting = first.plain("forgetting") - second.plain("forgetting")
        found[f"=forgetting {name}"] = tenths(forgetting, signed=True)
    return found


def _rising(points: Points, by: str) -> list[float]:
    """A metric along an axis, up to its highest value."""
    values = [runs.mean(by) for runs in points]
    return values[: values.index(max(values)) + 1]


def _estimate(value: float, images: Sequence[Array], *, signed: bool) -> Estimate:
    mean = sum(float(np.mean(part)) for part in images)
    low, high = bootstrap_interval(images)
    return Estimate(value, value + 100 * (low - mean), value + 100 * (high - mean), signed=signed)
