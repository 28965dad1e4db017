"""Filters change pictures in one way, the same in every process."""

import hashlib

import numpy as np
import pytest

from clbench.datamodules.mini.filters import CORRUPTED, INVERTED, Filter, draw_filter

GOLDEN = "82b59f7d3196c6f5"
"""Of `Filter` without a turn, which is Pillow's, on `pictures`."""


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


def test_a_filter_of_defaults_changes_nothing() -> None:
    np.testing.assert_array_equal(Filter().apply(pictures(), generator()), pictures())


def test_inverting_twice_gives_the_pictures_back() -> None:
    once = INVERTED.apply(pictures(), generator())
    np.testing.assert_array_equal(once, 255 - pictures())
    np.testing.assert_array_equal(INVERTED.apply(once, generator()), pictures())


def test_a_blurred_picture_has_the_same_mean_and_less_contrast() -> None:
    blurred = Filter(blur=0.1).apply(pictures(), generator())
    assert blurred.mean() == pytest.approx(pictures().mean(), abs=1)
    assert blurred.std() < 0.7 * pictures().std()


def test_noise_differs_from_picture_to_picture_and_is_that_of_the_generator() -> None:
    grey = np.full((2, 3, 32, 32), 128, np.uint8)
    noisy = Filter(noise=10.0).apply(grey, generator())
    assert noisy.std() == pytest.approx(10, abs=0.5)
    assert (noisy[0] != noisy[1]).any()
    np.testing.assert_array_equal(noisy, Filter(noise=10.0).apply(grey, generator()))


def test_a_turn_moves_what_is_off_the_centre_and_fills_with_the_corner() -> None:
    picture = np.full((1, 3, 32, 32), 50, np.uint8)
    picture[:, :, 12:20, 26:30] = 200
    turned = Filter(angle=90.0).apply(picture, generator())
    assert (turned[:, :, 2:6, 12:20] == 200).all()  # what was on the right is at the top
    assert turned[:, :, :, 24:].max() == 50


def test_channels_change_places_and_a_tint_covers_them() -> None:
    red = np.zeros((1, 3, 32, 32), np.uint8)
    red[:, 0] = 200
    swapped = Filter(mixing=((0, 0, 1), (0, 1, 0), (1, 0, 0))).apply(red, generator())
    assert swapped[0, :, 0, 0].tolist() == [0, 0, 200]
    tinted = Filter(tint=(0.0, 100.0, 0.0), cover=0.5).apply(red, generator())
    assert tinted[0, :, 0, 0].tolist() == [100, 50, 0]


def test_the_bits_stay_what_they_are() -> None:
    """If they change, numbers of benchmarks change: their version must be raised."""
    one = Filter(
        blur=0.1,
        mixing=((0.5, 0.25, 0.25), (0.0, 0.75, 0.25), (0.25, 0.0, 0.75)),
        inverted=True,
        contrast=0.75,
        tint=(10.0, 200.0, 90.0),
        cover=0.25,
        noise=12.5,
    )
    changed = [f.apply(pictures(), generator()).tobytes() for f in (one, INVERTED, CORRUPTED)]
    assert hashlib.sha256(b"".join(changed)).hexdigest()[:16] == GOLDEN


def test_drawn_filters_differ_and_are_those_of_the_seed() -> None:
    drawn = [draw_filter(np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(drawn)) == 50
    assert drawn[7] == draw_filter(np.random.default_rng(7))
    assert {one.inverted for one in drawn} == {True, False}
    assert all(sum(row) == pytest.approx(1, abs=0.01) for one in drawn for row in one.mixing)
