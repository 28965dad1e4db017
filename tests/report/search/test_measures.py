"""Fronts, areas and expected maxima against cases worked out by hand."""

from __future__ import annotations

import pytest

from clbench.report.search.budget import spaced
from clbench.report.search.measures import area, expected_best, front


def test_a_front_has_the_points_that_none_exceeds() -> None:
    points = [(0.5, 0.8), (0.7, 0.6), (0.4, 0.4), (0.7, 0.5), (0.5, 0.8), (0.3, 0.8)]
    assert front(points) == [0, 1]
    assert front([]) == []


def test_the_area_counts_what_two_points_share_once() -> None:
    assert area([(0.5, 0.8)]) == pytest.approx(0.4)
    assert area([(0.5, 0.8), (0.7, 0.6)]) == pytest.approx(0.5 * 0.8 + 0.2 * 0.6)
    assert area([(0.5, 0.8), (0.7, 0.6), (0.6, 0.5)]) == area([(0.5, 0.8), (0.7, 0.6)])
    assert area([(0.5, 0.8), (0.7, 0.6)], (0.6, 0.5)) == pytest.approx(0.1 * 0.1)
    assert area([]) == 0


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    scores = [0.2, 0.6, None]
    pairs = [max(a, b) for a in (0.2, 0.6, 0.0) for b in (0.2, 0.6, 0.0)]
    assert expected_best(scores, 1) == pytest.approx(0.8 / 3)
    assert expected_best(scores, 2) == pytest.approx(sum(pairs) / 9)
    assert expected_best([0.5], 16) == pytest.approx(0.5)


def test_names_keep_their_order_and_their_distance() -> None:
    assert spaced([0.0, 5.0, 0.1], 1.0) == pytest.approx([-0.45, 5.0, 0.55])
    assert spaced([3.0, 1.0, 2.0], 1.0) == pytest.approx([3.0, 1.0, 2.0])
    assert spaced([0.0, 0.0, 1.0], 1.0) == pytest.approx([-2 / 3, 1 / 3, 4 / 3])
