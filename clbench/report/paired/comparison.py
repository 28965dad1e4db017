"""Two methods on the same test images and seeds: differences with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.results.correctness import disagreement, read_rows
from clbench.core.results.result import RunResult
from clbench.report.formats.cells import Cell, Grid
from clbench.report.paired.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Rows,
    bootstrap_interval,
    cell_weights,
    holm,
    image_differences,
    sign_flip_p,
)
from clbench.report.tables.grid import interval, percent
from clbench.report.tables.groups import (
    ComparableGroup,
    MethodRuns,
    comparable_groups,
    file_name,
    method_runs,
)

TITLES = {
    "transfer": "Transfer",
    "average": "Avg",
    "last": "Last",
    "learned": "Learned",
    "backward_transfer": "BWT",
}
RunFiles = Sequence[tuple[Path, RunResult]]
"""Results with the files they were read from."""


@dataclass(frozen=True)
class Comparison:
    """Two methods of one group of comparable runs.

    Attributes:
        group: the comparable runs that include both methods.
        methods: their names.
        seeds: those of both methods.
        table: index: metrics, then tasks (accuracy after the last task). Columns: `images`,
            `first`, `second` and `difference` (fractions, means over seeds), `std` (sample
            standard deviation of the difference over seeds, NaN for one), `low` and `high`
            (bootstrap interval), for tasks `p` and `p_holm`.
    """

    group: ComparableGroup
    methods: tuple[str, str]
    seeds: tuple[int, ...]
    table: pd.DataFrame

    @property
    def stem(self) -> str:
        """Name of its files."""
        return file_name("compare-" + "-".join(self.methods))

    @property
    def title(self) -> str:
        """What is compared, for a heading."""
        listed = ", ".join(map(str, self.seeds))
        return (
            f"{self.labels[0]} minus {self.labels[1]}: {self.group.title}, "
            f"n = {len(self.seeds)} (seed{'s' if len(self.seeds) > 1 else ''} {listed})"
        )

    @property
    def labels(self) -> tuple[str, str]:
        """The titles of the methods."""
        titles = {result.method.name: result.method.title for result in self.group.results}
        return titles[self.methods[0]], titles[self.methods[1]]

    @property
    def notes(self) -> tuple[str, ...]:
        """How the numbers were made."""
        tests = int(self.table["p"].notna().sum())
        return (
            "Percent and percentage points, means over seeds"
            + (", ± sample standard deviation over seeds." if len(self.seeds) > 1 else ".")
            + " Metrics are those of all tasks; lines of tasks are the accuracy after the last "
            "task.",
            f"Intervals: {100 * CONFIDENCE:.0f} % percentile bootstrap over test images, paired "
            f"over methods and seeds, drawn within each task, {RESAMPLES} resamples; not "
            "corrected for their number. They say how the difference may vary with other test "
            "images, not with other seeds.",
            "p: exact paired permutation test over test images (with one seed McNemar's exact "
            f"test), two-sided; p (Holm): corrected for the {tests} tests of this table.",
        )

    def grid(self) -> Grid:
        """The printed table."""
        rows = []
        for label, row in self.table.iterrows():
            spread = "" if math.isnan(row["std"]) else f" ± {percent(row['std'])}"
            cells = (
                str(label),
                str(len(self.seeds)),
                str(int(row["images"])),
                percent(row["first"]),
                percent(row["second"]),
                percent(row["difference"], signed=True) + spread,
                interval(row["low"], row["high"]),
                *("" if math.isnan(row[key]) else f"{row[key]:.2g}" for key in ("p", "p_holm")),
            )
            rows.append(tuple(Cell(text) for text in cells))
        ends = f"{100 * CONFIDENCE:.0f} % interval"
        header = ("", "n", "Images", *self.labels, "Difference", ends, "p", "p (Holm)")
        metrics = int(self.table["p"].isna().sum())
        return Grid(header, tuple(rows), (False, *[True] * (len(header) - 1)), frozenset({metrics}))


def compare_methods(runs: RunFiles, first: str, second: str) -> list[Comparison]:
    """Compare two methods wherever both have comparable runs.

    Args:
        runs: all results, with their files.
        first: name of a method.
        second: name of another one.

    Returns:
        One comparison per group of comparable runs that has both methods.

    Raises:
        ClbenchError: a method has no runs, or several settings; the methods share no group;
            seeds differ; runs are unfinished; per-image correctness is missing or contradicts
            the accuracies.
    """
    if first == second:
        raise ClbenchError(f"--compare needs two different methods, got {first!r} twice")
    names = {result.method.name for _, result in runs}
    for name in (first, second):
        if name not in names:
            raise unknown_name("method among these runs", name, names)
    groups = comparable_groups(result for _, result in runs)
    having = {
        name: [g for g in groups if any(r.method.name == name for r in g.results)]
        for name in (first, second)
    }
    shared = [group for group in having[first] if group in having[second]]
    if not shared:
        raise ClbenchError(
            f"{first} and {second} have no comparable runs: "
            f"{having[first][0].title} is not {having[second][0].title}"
        )
    return [_compare(group, runs, first, second) for group in shared]


def _compare(group: ComparableGroup, runs: RunFiles, first: str, second: str) -> Comparison:
    rows = (only_setting(group, first), only_setting(group, second))
    seeds = [row.seeds for row in rows]
    if seeds[0] != seeds[1]:
        raise ClbenchError(
            f"{first} has the seeds {_listed(seeds[0])}, {second} {_listed(seeds[1])} "
            f"({group.name}): run the missing ones, or report only those that both have"
        )
    answers = [[answers_of(result, runs) for result in row.results] for row in rows]
    table = _table(rows, answers[0], answers[1])
    return Comparison(group, (first, second), seeds[0], table)


def _table(
    methods: tuple[MethodRuns, MethodRuns], first: Sequence[Rows], second: Sequence[Rows]
) -> pd.DataFrame:
    result = methods[0].results[0]
    tasks, counts = result.benchmark.tasks, result.accuracy.counts
    records: dict[str, Mapping[str, float]] = {}
    for metric, weights in cell_weights(result.benchmark.setting, counts).items():
        parts = image_differences(first, second, tasks, weights)
        values = [[r.summary[metric] or 0.0 for r in m.results] for m in methods]
        images = int(np.asarray(counts)[(weights > 0).any(axis=0)].sum())
        records[TITLES[metric]] = _record(values, images, bootstrap_interval(parts))
    last = len(tasks)
    p_values = []
    for j, (task, images) in enumerate(zip(tasks, counts, strict=True)):
        flips = np.sum([_minus(a, b, last, task) for a, b in zip(first, second, strict=True)], 0)
        values = [[float(r.matrix.values[last, j]) for r in m.results] for m in methods]
        interval = bootstrap_interval([flips / len(first)])
        p_values.append(sign_flip_p(flips))
        # A task may have the name of a metric.
        label = task if task not in records else f"{task} (task)"
        records[label] = {**_record(values, images, interval), "p": p_values[-1]}
    frame = pd.DataFrame.from_dict(dict(records), orient="index")
    frame["p_holm"] = [math.nan] * (len(frame) - len(tasks)) + holm(p_values).tolist()
    frame.index.name = "metric"
    return frame


def _record(
    values: Sequence[Sequence[float]], images: int, interval: tuple[float, float]
) -> dict[str, float]:
    differences = np.subtract(values[0], values[1])
    return {
        "images": images,
        "first": float(np.mean(values[0])),
        "second": float(np.mean(values[1])),
        "difference": float(differences.mean()),
        "std": float(differences.std(ddof=1)) if len(differences) > 1 else math.nan,
        "low": interval[0],
        "high": interval[1],
    }


def _minus(first: Rows, second: Rows, learned: int, task: str) -> np.ndarray:
    return first[learned][task].astype(np.int64) - second[learned][task]


def only_setting(group: ComparableGroup, method: str) -> MethodRuns:
    """The runs of a method in a group.

    Raises:
        ClbenchError: it has several settings there.
    """
    rows = [r for r in method_runs(group.results) if r.results[0].method.name == method]
    if len(rows) > 1:
        labels = "; ".join(row.label for row in rows)
        raise ClbenchError(
            f"{method} has {len(rows)} settings in {group.name} ({labels}): report the runs of one"
        )
    return rows[0]


def answers_of(result: RunResult, runs: RunFiles) -> Rows:
    """The per-image correctness of a run, checked against its accuracies.

    Raises:
        ClbenchError: the run is not finished, or its correctness is missing or contradicts them.
    """
    name = f"{result.method.name}, seed {result.seed}"
    if not result.matrix.complete:
        raise ClbenchError(f"{name} is not finished: resume it before comparing")
    found = [(path, read_rows(path)) for path, other in runs if other == result]
    for path, rows in found:
        if rows:
            problem = disagreement(rows, result.matrix)
            if problem is not None:
                raise ClbenchError(f"{path}: per-image correctness does not fit: {problem}")
            return rows
    raise ClbenchError(
        f"{name} has no per-image correctness beside {found[0][0]}: it was measured by an "
        "earlier version, or the files were not copied along; run it again"
    )


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
