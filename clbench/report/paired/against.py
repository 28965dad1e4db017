"""All methods beside one of them on the same test images and seeds, and the ranks that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.results.metrics import Array
from clbench.report.formats.cells import BEST, Cell, Grid
from clbench.report.paired.comparison import TITLES, RunFiles, only_setting
from clbench.report.paired.resamples import Resamples, finished
from clbench.report.paired.statistics import CONFIDENCE, RESAMPLES, limits
from clbench.report.tables.grid import interval, percent
from clbench.report.tables.groups import (
    ComparableGroup,
    comparable_groups,
    file_name,
    is_upper_bound,
    method_runs,
)

RANKED: Final = "average"
"""The metric that ranks methods."""
PARTS: Final = ("difference", "low", "high")


@dataclass(frozen=True)
class Against:
    """The methods of one group of comparable runs, each minus one of them, the best Avg first.

    Attributes:
        group: the comparable runs.
        method: name of the one that all are held against.
        seeds: those of all methods in the table.
        table: index: labels. Columns per metric: its `value`, the `difference`, and its `low` and
            `high` end (fractions), as ``<metric>_<name>``; `best_rank` and `worst_rank` that
            a method may have by Avg (NaN for upper bounds).
        left_out: labels of methods that have other seeds or unfinished runs.
    """

    group: ComparableGroup
    method: str
    seeds: tuple[int, ...]
    table: pd.DataFrame
    left_out: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The title of the one that all are held against."""
        return only_setting(self.group, self.method).label

    @property
    def stem(self) -> str:
        """Name of its files."""
        return file_name(f"against-{self.method}")

    @property
    def title(self) -> str:
        """What is compared, for a heading."""
        listed = ", ".join(map(str, self.seeds))
        return f"Differences to {self.label}: {self.group.title}, seeds {listed}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How the numbers were made."""
        notes = (
            f"Percentage points more than {self.label}, means over seeds, in brackets the "
            f"{100 * CONFIDENCE:.0f} % percentile bootstrap interval over test images, paired over "
            f"methods and seeds, drawn within each task, {RESAMPLES} resamples; bold where it is "
            "without zero. Intervals are not corrected for their number. They say how a difference "
            "may vary with other test images, not with other seeds.",
            "Rank: from 1 more than the number of methods whose Avg is higher by such an interval, "
            "to 1 more than the number of those of which it cannot be said that it is lower.",
        )
        if not self.left_out:
            return notes
        named = ", ".join(self.left_out)
        return *notes, f"Not here, for their runs are of other seeds or unfinished: {named}."

    def grid(self) -> Grid:
        """The printed table."""
        metrics = [m for m in TITLES if f"{m}_value" in self.table]
        rows = tuple(
            (
                Cell(str(label)),
                Cell(percent(row[f"{RANKED}_value"])),
                Cell(_ranks(row["best_rank"], row["worst_rank"])),
                *(_cell(*(row[f"{m}_{part}"] for part in PARTS)) for m in metrics),
            )
            for label, row in self.table.iterrows()
        )
        header = ("Method", TITLES[RANKED], "Rank", *(f"Δ {TITLES[m]}" for m in metrics))
        return Grid(header, rows, (False, *[True] * (len(header) - 1)))


def against(runs: RunFiles, method: str) -> list[Against]:
    """Hold all methods against one, wherever it has comparable runs.

    Args:
        runs: all results, with their files.
        method: name of the one.

    Returns:
        One table per group of comparable runs that has this method and others.

    Raises:
        ClbenchError: the method has no runs, several settings in a group, unfinished runs, or is
            alone everywhere; per-image correctness is missing or contradicts the accuracies.
    """
    names = {result.method.name for _, result in runs}
    if method not in names:
        raise unknown_name("method among these runs", method, names)
    groups = comparable_groups(result for _, result in runs)
    found = [_against(g, runs, method) for g in groups if _has_others(g, method)]
    if not found:
        raise ClbenchError(f"no other method has runs that are comparable with those of {method}")
    return found


def _has_others(group: ComparableGroup, method: str) -> bool:
    return {method} < {result.method.name for result in group.results}


def _against(group: ComparableGroup, runs: RunFiles, method: str) -> Against:
    seeds = only_setting(group, method).seeds
    every = method_runs(group.results)
    rows = [row for row in every if row.seeds == seeds and finished(row)]
    left_out = tuple(row.label for row in every if row not in rows)
    resamples = Resamples.of(group, rows, runs)
    reference = [row.results[0].method.name for row in rows].index(method)
    columns: dict[str, Array] = {}
    for m, metric in enumerate(resamples.metrics):
        columns[f"{metric}_value"] = resamples.values[m]
        difference, ends = resamples.differences(m, reference)
        columns[f"{metric}_difference"] = difference
        columns[f"{metric}_low"], columns[f"{metric}_high"] = ends.T
    ranked = np.array([not is_upper_bound(row.results[0]) for row in rows])
    every_average = resamples.totals[:, resamples.metrics.index(RANKED)]
    best, worst = rank_ranges(every_average, ranked)
    columns["best_rank"], columns["worst_rank"] = best, worst
    table = pd.DataFrame(columns, index=pd.Index([row.label for row in rows], name="method"))
    ordered = table.sort_values(f"{RANKED}_value", ascending=False, kind="stable")
    return Against(group, method, seeds, ordered, left_out)


def rank_ranges(totals: Array, taking_part: Array) -> tuple[Array, Array]:
    """The best and the worst rank that each of K methods may have.

    Args:
        totals: ``(resamples, K)``, the metric of all methods in the same resamples.
        taking_part: ``(K,)``, whether a method is ranked.

    Returns:
        Two arrays ``(K,)``: 1 more than the number of methods that are better, and the number of
        methods less those that are worse; NaN where a method is not ranked. A method is better than
        another where the interval of their difference lies above zero.

    >>> best, worst = rank_ranges(np.array([[3.0, 2.0, 2.1], [3.1, 2.1, 2.0]]), np.ones(3, bool))
    >>> best.tolist(), worst.tolist()
    ([1.0, 2.0, 2.0], [1.0, 3.0, 3.0])
    """
    best, worst = np.full(totals.shape[1], np.nan), np.full(totals.shape[1], np.nan)
    for k in np.flatnonzero(taking_part):
        low, high = limits(totals[:, taking_part] - totals[:, [k]]).T
        best[k] = 1 + (low > 0).sum()
        worst[k] = taking_part.sum() - (high < 0).sum()
    return best, worst


def _ranks(best: float, worst: float) -> str:
    if np.isnan(best):
        return ""
    return f"{best:.0f}" if best == worst else f"{best:.0f}\N{EN DASH}{worst:.0f}"


def _cell(difference: float, low: float, high: float) -> Cell:
    differs = low > 0 or high < 0
    text = f"{percent(difference, signed=True)} {interval(low, high)}"
    return Cell(text, BEST if differs else "")
