"""Metrics read off where another one is equal; all numbers known by hand."""

from pathlib import Path

import numpy as np
import pytest

from clbench.studies.matched import common_levels, find_crossing
from clbench.studies.runs import Runs, metric_weights
from tests.studies.made_up_runs import make_run

COUNT = 20


def point(folder: Path, learned: float, last: float) -> Runs:
    """A setting that learns two tasks to a share of the images and keeps another of the first.

    Learned is the mean of both diagonal cells, which are equal; Last that of the lower row.
    """

    def images(share: float) -> list[bool]:
        return [i < round(share * COUNT) for i in range(COUNT)]

    rows = [[0.5, 0.5], [learned, 0.5], [2 * last - learned, learned]]
    answers = [[images(value) for value in row] for row in rows]
    return Runs([make_run(folder, "nusa", 0, answers)])


def test_a_metric_is_read_between_two_settings(tmp_path: Path) -> None:
    points = [point(tmp_path, 0.5, 0.5), point(tmp_path, 0.7, 0.6), point(tmp_path, 0.9, 0.6)]
    found = find_crossing(points, 65.0)
    assert found is not None
    assert found.share == pytest.approx(0.75)
    assert found.plain("last") == pytest.approx(57.5)
    last = found.estimate("last")
    assert last.value == pytest.approx(57.5)
    assert last.low < 57.5 < last.high
    assert found.estimate("learned").value == pytest.approx(65.0)


def test_the_level_itself_has_no_interval(tmp_path: Path) -> None:
    found = find_crossing([point(tmp_path, 0.5, 0.5), point(tmp_path, 0.7, 0.6)], 65.0)
    assert found is not None
    learned = found.estimate("learned")
    assert (learned.low, learned.high) == pytest.approx((65.0, 65.0))


def test_a_difference_is_that_of_two_readings_image_by_image(tmp_path: Path) -> None:
    one = find_crossing([point(tmp_path, 0.5, 0.5), point(tmp_path, 0.7, 0.7)], 60.0)
    same = find_crossing([point(tmp_path, 0.5, 0.5), point(tmp_path, 0.7, 0.7)], 60.0)
    other = find_crossing([point(tmp_path, 0.6, 0.5), point(tmp_path, 0.7, 0.5)], 60.0)
    assert one is not None
    assert same is not None
    assert other is not None
    equal = one.difference(same, "last")
    assert (equal.value, equal.low, equal.high) == pytest.approx((0, 0, 0))
    assert one.difference(other, "last").value == pytest.approx(10.0)


def test_the_interval_covers_the_spread_of_other_images(tmp_path: Path) -> None:
    """To first order: against reading the level anew from resampled images."""
    points = [point(tmp_path, 0.5, 0.45), point(tmp_path, 0.9, 0.65)]
    found = find_crossing(points, 70.0)
    assert found is not None
    result = points[0][0].result
    parts = {
        metric: [runs.contributions(metric_weights(result, metric)) for runs in points]
        for metric in ("learned", "last")
    }
    generator, readings = np.random.default_rng(1), []
    for _ in range(4000):
        chosen = [generator.integers(COUNT, size=COUNT) for _ in range(2)]
        (la, lb), (a, b) = (
            [100 * sum(images[c].mean() for images, c in zip(p, chosen, strict=True)) for p in both]
            for both in (parts["learned"], parts["last"])
        )
        readings.append(a + (b - a) * (70.0 - la) / (lb - la))
    low, high = np.quantile(readings, [0.025, 0.975])
    estimate = found.estimate("last")
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_a_level_that_is_never_reached_is_none(tmp_path: Path) -> None:
    assert find_crossing([point(tmp_path, 0.5, 0.5), point(tmp_path, 0.7, 0.6)], 80.0) is None
    assert find_crossing([point(tmp_path, 0.5, 0.5)], 50.0) is None


def test_settings_beyond_the_peak_do_not_count(tmp_path: Path) -> None:
    points = [point(tmp_path, learned, 0.5) for learned in (0.6, 0.8, 0.4)]
    assert find_crossing(points, 50.0) is None
    found = find_crossing(points, 70.0)
    assert found is not None
    assert found.second is points[1]
    low = [point(tmp_path, 0.4, 0.5), point(tmp_path, 0.9, 0.5)]
    assert common_levels([points, low], (0.0, 1.0)) == pytest.approx([60, 80])


def test_levels_lie_where_all_ranges_meet(tmp_path: Path) -> None:
    wide = [point(tmp_path, 0.4, 0.5), point(tmp_path, 0.8, 0.5)]
    high = [point(tmp_path, 0.6, 0.5), point(tmp_path, 0.9, 0.5)]
    assert common_levels([wide, high], (0.0, 0.5, 1.0)) == pytest.approx([60, 70, 80])
    assert common_levels([wide, [point(tmp_path, 0.9, 0.5)] * 2]) == []
