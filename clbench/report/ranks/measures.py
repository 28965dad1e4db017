"""Do methods differ over tasks, and do benchmarks rank them alike? Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

ALPHA: Final = 0.05
"""Probability of an error of the first kind."""


def average_ranks(scores: ArrayLike) -> Array:
    """Mean rank of every method over the tasks; 1 is the best, equal ones share their mean rank.

    Args:
        scores: ``(tasks, methods)``, larger is better.

    Returns:
        Shape ``(methods,)``.

    >>> average_ranks([[0.9, 0.5, 0.5], [0.8, 0.9, 0.1]])
    array([1.5 , 1.75, 2.75])
    """
    values = np.asarray(scores, dtype=np.float64)
    ranks: Array = stats.rankdata(-values, axis=1).mean(axis=0)
    return ranks


def friedman(scores: ArrayLike) -> tuple[float, float]:
    """Friedman's test of the hypothesis that all methods are alike.

    Args:
        scores: ``(tasks, methods)`` of at least three methods and two tasks.

    Returns:
        The statistic, corrected for ties and distributed nearly as chi-squared with
        ``methods - 1`` degrees of freedom, and its p-value; NaN where all scores of every task are
        equal.
    """
    values = np.asarray(scores, dtype=np.float64)
    if (values == values[:, :1]).all():
        return math.nan, math.nan
    found = stats.friedmanchisquare(*values.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, tasks: int, alpha: float = ALPHA) -> float:
    """The difference of two average ranks from which on two methods differ (Nemenyi's test).

    Demšar (2006): ``q * sqrt(k (k + 1) / (6 N))`` for k methods on N tasks, with q the upper
    `alpha` quantile of the studentized range of k values, divided by the square root of 2.

    >>> round(critical_difference(4, 14, alpha=0.05), 2)  # q = 2.569 in Demšar's table 5
    1.25
    """
    q = float(stats.studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def alike(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Groups of methods of which no two differ, as large as can be.

    Args:
        ranks: average ranks in rising order.
        difference: from `critical_difference`.

    Returns:
        First and last index of every group of two or more; groups may overlap.

    >>> alike([1.0, 1.5, 2.2, 4.0], 1.0)
    [(0, 1), (1, 2)]
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def agreement(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """How alike two benchmarks rank the same methods: Kendall's tau-b and Spearman's rho.

    Returns:
        1 for the same order, -1 for the opposite; NaN where all methods of one are equal.
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan, math.nan
    tau, rho = stats.kendalltau(first, second), stats.spearmanr(first, second)
    return float(tau.statistic), float(rho.statistic)
