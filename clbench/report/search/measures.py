"""What the trials of a method amount to: their front, the area under it, the best of n of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Point = tuple[float, float]

REFERENCE: Final[Point] = (0.0, 0.0)
"""Where the area under a front begins: no accuracy at all, the same for all methods."""
DIVERGED: Final = 0.0
"""Score of a trial whose training diverged: the worst there is."""


def front(points: Sequence[Point]) -> list[int]:
    """Which points no other point exceeds: none is as large in both coordinates and larger in one.

    Args:
        points: larger is better in both coordinates.

    Returns:
        Indices, by rising first and falling second coordinate; of equal points the first.

    >>> front([(1, 3), (2, 2), (1, 2), (3, 1), (2, 2)])
    [0, 1, 3]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], i))
    found: list[int] = []
    for i in order:
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found[::-1]


def area(points: Sequence[Point], reference: Point = REFERENCE) -> float:
    """The area between the front of some points and a reference point (their hypervolume).

    It is the area of all ``(x, y)`` with ``x >= reference[0]`` and ``y >= reference[1]`` that some
    point reaches in both coordinates (Zitzler and Thiele, 1998). With accuracies as fractions and
    the reference (0, 0) it is at most 1. Settings that trade one coordinate for the other add to
    it; settings worse in both add nothing.

    >>> round(area([(0.5, 0.8), (0.7, 0.6), (0.4, 0.4)]), 10)  # 0.5 * 0.8 + 0.2 * 0.6
    0.52
    """
    total, left = 0.0, reference[0]
    for x, y in (points[i] for i in front(points)):
        if x > left and y > reference[1]:
            total += (x - left) * (y - reference[1])
            left = x
    return total


def expected_best(scores: Sequence[float | None], n: int) -> float:
    """The best score that n settings are expected to have, drawn from those that were tried.

    Dodge et al. (2019), "Show Your Work": the expected maximum of n draws with replacement from
    the empirical distribution of the N scores. With the scores sorted, ``v_1 <= ... <= v_N``,

        E = sum_i v_i * ((i / N)**n - ((i - 1) / N)**n).

    Args:
        scores: of all trials; None where training diverged, which counts as `DIVERGED`.
        n: number of draws, at least 1.

    >>> round(expected_best([0.2, None, 0.6], 2), 10)  # 0 * 1/9 + 0.2 * 3/9 + 0.6 * 5/9
    0.4
    """
    values = sorted(DIVERGED if score is None else score for score in scores)
    size = len(values)
    shares = [((i + 1) / size) ** n - (i / size) ** n for i in range(size)]
    return sum(value * share for value, share in zip(values, shares, strict=True))
