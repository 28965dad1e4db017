"""How numbers of several runs spread: means, correlations and variances with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from clbench.core.results.metrics import Array
from clbench.studies.runs import Estimate

CONFIDENCE = 0.95
RESAMPLES = 10_000
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True)
class Interval:
    """A number that is no percentage, with its interval.

    >>> print(Interval(0.654, -0.1, 1.0))
    0.65 [-0.10, 1.00]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mean_of(values: Sequence[float], signed: bool = False) -> Estimate:
    """The mean of independent numbers, with Student's interval.

    >>> print(mean_of([1.0, 2.0, 3.0]))
    2.0 [-0.5, 4.5]
    """
    found = np.asarray(values, dtype=np.float64)
    half = stats.t.isf(_TAIL, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return Estimate(
        float(found.mean()), float(found.mean() - half), float(found.mean() + half), signed
    )


def rank_correlation(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Interval:
    """Spearman's correlation, with a percentile bootstrap interval over the pairs of numbers.

    NaN where all numbers of a side are equal.

    >>> rank_correlation([1, 2, 3, 4, 5, 6], [1, 4, 9, 16, 25, 36]).value
    1.0
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(seed).integers(len(a), size=(RESAMPLES, len(a)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (a, b)]
    left, right = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore"):  # resamples of one number only have no correlation
        found = (left * right).sum(1) / np.sqrt((left**2).sum(1) * (right**2).sum(1))
    low, high = np.nanquantile(found, [_TAIL, 1 - _TAIL])
    return Interval(float(stats.spearmanr(a, b).statistic), float(low), float(high))


def within(values: ArrayLike, groups: Sequence[str]) -> Array:
    """Numbers minus the mean of their group.

    >>> within([1.0, 3.0, 10.0], ["a", "a", "b"])
    array([-1.,  1.,  0.])
    """
    found, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    centred = found - np.array([found[names == name].mean() for name in groups])
    return centred.round(12) + 0.0  # what is equal but for rounding is equal


def slope_within(x: ArrayLike, y: ArrayLike, groups: Sequence[str]) -> Estimate:
    """Least-squares slope of y against x with one intercept per group, and Student's interval."""
    a, b = within(x, groups), within(y, groups)
    slope = float((a * b).sum() / (a * a).sum())
    freedom = len(a) - len(set(groups)) - 1
    error = math.sqrt(float(((b - slope * a) ** 2).sum()) / freedom / float((a * a).sum()))
    half = float(stats.t.isf(_TAIL, freedom)) * error
    return Estimate(slope, slope - half, slope + half, signed=True)


@dataclass(frozen=True)
class Variance:
    """A variance and its degrees of freedom.

    Attributes:
        value: of independent, normally distributed numbers.
        freedom: degrees of freedom; not whole where it stands for numbers that hang together.
    """

    value: float
    freedom: float

    def deviation(self, times: float = 1.0) -> Estimate:
        """The standard deviation, with the interval of the chi-squared distribution.

        >>> print(Variance(4.0, 9).deviation())
        2.0 [1.4, 3.7]
        """
        low, high = (
            times * math.sqrt(self.value * self.freedom / stats.chi2.isf(tail, self.freedom))
            for tail in (_TAIL, 1 - _TAIL)
        )
        return Estimate(times * math.sqrt(self.value), low, high)

    def over(self, other: Variance) -> Estimate:
        """The ratio of two independent variances, with the interval of the F distribution.

        >>> print(Variance(4.0, 9).over(Variance(1.0, 4)))
        4.0 [0.4, 18.9]
        """
        ratio = self.value / other.value
        low = ratio / float(stats.f.isf(_TAIL, self.freedom, other.freedom))
        return Estimate(ratio, low, ratio * float(stats.f.isf(_TAIL, other.freedom, self.freedom)))


def variance_of(values: ArrayLike) -> Variance:
    """The variance of independent numbers."""
    found = np.asarray(values, dtype=np.float64)
    return Variance(float(found.var(ddof=1)), len(found) - 1)


def pooled_variance(columns: ArrayLike) -> Variance:
    """The mean of the variances of several columns whose rows belong together.

    Columns that were measured under the same conditions, row by row, are no independent evidence.
    Box's correction (1954) counts them for as much as their covariance allows: n - 1 degrees of
    freedom where all columns are alike, up to k times as many where they are independent.

    Args:
        columns: ``(n, k)``.

    >>> pooled_variance([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    Variance(value=1.0, freedom=2.0)
    """
    found = np.asarray(columns, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(found, rowvar=False))
    total = float(np.trace(covariance))
    effective = total**2 / (covariance**2).sum() if total else 1.0
    freedom = float(effective * (len(found) - 1))
    return Variance(float(np.diagonal(covariance).mean()), round(freedom, 9))
