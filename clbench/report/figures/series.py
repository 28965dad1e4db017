"""What figures draw: one series per method, with the numbers of all its seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.report.tables.groups import method_runs

if TYPE_CHECKING:
    from matplotlib.artist import Artist

    from clbench.report.figures.style import LineStyle

Array = NDArray[np.float64]
CONFIDENCE = 0.95
NAMES = "names-of-methods"
"""What the names of markers are called, so that a page can place its own."""
TAG = "row-"
"""What the names of artists begin with that belong to a row of the tables."""


@dataclass(frozen=True)
class Series:
    """The runs of one method.

    Attributes:
        label: as in their row of the tables.
        results: one per seed.
        style: how the method is drawn in every figure.
        number: of its row among those of the group.
        chosen: whether it stands out.
    """

    label: str
    results: tuple[RunResult, ...]
    style: LineStyle
    number: int = 0
    chosen: bool = True

    def tag(self, artist: Artist, kind: str) -> None:
        """Name an artist after its row and what it is, so that a page can find it."""
        artist.set_gid(f"{TAG}{self.number}-{kind}")

    @property
    def matrices(self) -> list[AccuracyMatrix]:
        """One per seed."""
        return [result.matrix for result in self.results]

    @property
    def values(self) -> Array:
        """Accuracies in percent, ``(seeds, T + 1, T)``."""
        return 100 * np.stack([matrix.values for matrix in self.matrices])

    def summary(self, key: str) -> Array:
        """A summary metric of every seed, in percent; NaN where undefined."""
        found = [result.summary[key] for result in self.results]
        return 100 * np.array([math.nan if value is None else value for value in found])

    def ranks(self, encoder: str) -> Array | None:
        """Effective rank in percent, ``(seeds, T + 1)``; None unless every seed recorded it."""
        records = [result.effective_rank for result in self.results]
        rows = [None if r is None else r.values.get(encoder) for r in records]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows):
            return None
        return 100 * np.array([[math.nan if v is None else v for v in row] for row in known])

    def probed(self, probe: str, key: str) -> Array | None:
        """What a probe measured, ``(seeds, T + 1)``; None unless every seed has it."""
        records = [result.probes.get(probe) for result in self.results]
        rows = [None if r is None else r.values.get(key) for r in records]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows):
            return None
        return np.array([[math.nan if v is None else v for v in row] for row in known])

    @property
    def training_seconds(self) -> float:
        """Mean training time of a run."""
        return float(np.mean([result.cost.training_seconds for result in self.results]))


def make_series(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> tuple[list[Series], list[Series]]:
    """Series of the methods that change the model, and of those that never do.

    Args:
        results: comparable runs.
        chosen: names of the methods that stand out; None for all. The others are grey.
    """
    from clbench.report.figures.style import line_styles

    rows = method_runs(results)
    fixed = [all(map(_never_changes, row.results)) for row in rows]
    stands_out = [chosen is None or row.results[0].method.name in chosen for row in rows]
    # The first styles are those that are told apart best.
    order = sorted(range(len(rows)), key=lambda i: (not stands_out[i], fixed[i]))
    styles = dict(zip(order, line_styles(len(rows)), strict=True))
    series = [
        Series(row.label, row.results, s if out else s.faint(), number, out)
        for number, (row, s, out) in enumerate(
            zip(rows, map(styles.__getitem__, range(len(rows))), stands_out, strict=True)
        )
    ]
    return [s for s in series if not fixed[s.number]], [s for s in series if fixed[s.number]]


def zero_shot_row(results: Sequence[RunResult]) -> Array:
    """What the model scores before training, in percent; the first run that measured it."""
    rows = [100 * result.matrix.values[0] for result in results]
    known = [row for row in rows if not np.isnan(row).any()]
    return known[0] if known else np.full_like(rows[0], math.nan)


def spread(values: Array) -> Array:
    """Sample standard deviation over seeds (the first axis); NaN for one seed."""
    if len(values) < 2:
        return np.full(values.shape[1:], math.nan)
    deviation: Array = values.std(axis=0, ddof=1)
    return deviation


def half_interval(values: Array) -> float:
    """Half the width of the 95 % t-interval of the mean over seeds; NaN for one seed.

    >>> round(half_interval(np.array([1.0, 2.0, 3.0])), 3)  # 4.303 / sqrt(3)
    2.484
    """
    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))


def _never_changes(result: RunResult) -> bool:
    values = result.matrix.values
    return bool((values == values[0]).all())
