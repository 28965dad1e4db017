"""Metrics of several methods in the same resamples of test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clbench.core.results.metrics import Array
from clbench.report.paired.comparison import RunFiles, answers_of
from clbench.report.paired.statistics import cell_weights, image_contributions, limits, resampled
from clbench.report.tables.groups import ComparableGroup, MethodRuns


@dataclass(frozen=True)
class Resamples:
    """All metrics of K methods, as measured and as they might be with other test images.

    Attributes:
        metrics: names of M metrics.
        values: ``(M, K)``, as measured, means over seeds.
        totals: ``(resamples, M, K)``; a resample draws the same images for all.
    """

    metrics: tuple[str, ...]
    values: Array
    totals: Array

    @classmethod
    def of(cls, group: ComparableGroup, rows: Sequence[MethodRuns], runs: RunFiles) -> Resamples:
        """Resample the test images of methods with the same seeds.

        Args:
            group: their group.
            rows: the methods.
            runs: all results, with their files.

        Raises:
            ClbenchError: per-image correctness is missing or contradicts the accuracies.
        """
        answers = [[answers_of(result, runs) for result in row.results] for row in rows]
        first = group.results[0]
        tasks, counts = first.benchmark.tasks, first.accuracy.counts
        weights = cell_weights(group.setting, counts)
        shares = [[image_contributions(one, tasks, w) for one in answers] for w in weights.values()]
        by_task = [_columns(shares, j, count) for j, count in enumerate(counts)]
        shape = (-1, len(weights), len(rows))
        values = np.sum([part.mean(axis=0) for part in by_task], axis=0).reshape(shape)[0]
        return cls(tuple(weights), values, resampled(by_task).reshape(shape))

    def differences(self, metric: int, other: int) -> tuple[Array, Array]:
        """All methods less another one, ``(K,)``, and the ends of their intervals, ``(K, 2)``."""
        totals = self.totals[:, metric]
        measured = self.values[metric]
        return measured - measured[other], limits(totals - totals[:, [other]])


def finished(row: MethodRuns) -> bool:
    """Whether all runs of a method have all rows."""
    return all(result.matrix.complete for result in row.results)


def _columns(shares: Sequence[Sequence[Sequence[Array]]], task: int, images: int) -> Array:
    """What images of a task add to all metrics of all methods: ``(images, metrics * methods)``."""
    parts = [np.broadcast_to(one[task], images) for of_metric in shares for one in of_metric]
    return np.stack(parts, axis=1)
