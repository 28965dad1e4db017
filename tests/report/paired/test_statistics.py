"""Paired statistics against hand-computed numbers and independent implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.task import Setting
from clbench.report.paired.statistics import (
    Rows,
    bootstrap_interval,
    cell_weights,
    holm,
    image_differences,
    sign_flip_p,
)

TASKS = ("a", "b", "c")
COUNTS = (5, 8, 3)


def random_rows(seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    return {
        t: {task: generator.random(n) < 0.6 for task, n in zip(TASKS, COUNTS, strict=True)}
        for t in range(4)
    }


def matrix_of(rows: Rows, setting: Setting) -> AccuracyMatrix:
    values = [[float(rows[t][task].mean()) for task in TASKS] for t in range(4)]
    return AccuracyMatrix.from_lists(TASKS, values, COUNTS, setting)


@pytest.mark.parametrize("setting", [Setting.TASK_GIVEN, Setting.CLASS_INCREMENTAL])
def test_weights_give_the_metrics_of_the_matrix(setting: Setting) -> None:
    matrix = matrix_of(random_rows(0), setting)
    summary = matrix.summary()
    weights = cell_weights(setting, COUNTS)
    metrics = ("transfer", "average", "last", "learned", "backward_transfer")
    assert set(weights) == {key for key in metrics if summary[key]}
    for metric, cells in weights.items():
        assert (cells * matrix.values[1:]).sum() == pytest.approx(summary[metric])


def test_a_single_task_has_no_transfer() -> None:
    assert set(cell_weights(Setting.TASK_GIVEN, [4])) == {"average", "last", "learned"}


@pytest.mark.parametrize("setting", [Setting.TASK_GIVEN, Setting.CLASS_INCREMENTAL])
def test_image_differences_add_up_to_the_difference_over_seeds(setting: Setting) -> None:
    first, second = [random_rows(1), random_rows(2)], [random_rows(3), random_rows(4)]
    for metric, weights in cell_weights(setting, COUNTS).items():
        means = [
            np.mean([matrix_of(rows, setting).summary()[metric] or 0 for rows in runs])
            for runs in (first, second)
        ]
        parts = image_differences(first, second, TASKS, weights)
        assert sum(part.mean() for part in parts) == pytest.approx(means[0] - means[1])


def test_image_differences_by_hand() -> None:
    first = [{1: {"a": np.array([1, 1, 0], bool)}}, {1: {"a": np.array([1, 0, 0], bool)}}]
    second = [{1: {"a": np.array([0, 1, 1], bool)}}, {1: {"a": np.array([0, 0, 0], bool)}}]
    (found,) = image_differences(first, second, ["a"], np.ones((1, 1)))
    assert found.tolist() == [1.0, 0.0, -0.5]


def test_the_interval_is_that_of_drawing_single_images() -> None:
    generator = np.random.default_rng(7)
    # Some values are shared by images, but sums are not on a coarse lattice.
    parts = [np.repeat(generator.normal(size=8), 3), generator.normal(size=12)]
    totals = sum(
        part[generator.integers(len(part), size=(20_000, len(part)))].mean(axis=1) for part in parts
    )
    expected = np.quantile(totals, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(parts), expected, atol=0.03)


def test_the_interval_of_many_images_is_the_normal_one() -> None:
    part = np.repeat([1.0, 0.0, -1.0], [300, 600, 100])
    low, high = bootstrap_interval([part])
    error = 1.96 * part.std() / np.sqrt(1000)
    assert low == pytest.approx(0.2 - error, abs=0.002)
    assert high == pytest.approx(0.2 + error, abs=0.002)


def test_the_resampling_is_fixed_by_its_seed() -> None:
    part = np.arange(-4, 9) / 10
    assert bootstrap_interval([part]) == bootstrap_interval([part])
    assert bootstrap_interval([part], seed=1) != bootstrap_interval([part])
    narrow, wide = bootstrap_interval([part], confidence=0.5), bootstrap_interval([part])
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_seed_is_mcnemars_exact_test() -> None:
    better, worse = 37, 21
    differences = np.repeat([1, -1, 0], [better, worse, 900])
    expected = binomtest(better, better + worse).pvalue
    assert sign_flip_p(differences) == pytest.approx(expected, rel=1e-9)


def test_several_seeds_count_all_sign_patterns() -> None:
    differences = np.array([3, -1, 2, 1, 0, -2, 3])
    sums = [
        abs(int(np.dot(signs, differences)))
        for signs in itertools.product([-1, 1], repeat=len(differences))
    ]
    expected = np.mean([total >= abs(differences.sum()) for total in sums])
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_tests_without_evidence_and_with_much_of_it() -> None:
    assert sign_flip_p(np.zeros(5, int)) == 1.0
    assert sign_flip_p([1, -1]) == 1.0
    assert sign_flip_p(np.repeat([1, -1], [12_000, 8_000])) < 1e-150
    assert sign_flip_p(np.repeat([2, -3, 1], [3_000, 2_000, 3_000])) < 1e-60


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.011, 0.02, 0.04 times 4, 3, 2, 1; the last would fall to 0.04.
    np.testing.assert_allclose(holm([0.02, 0.005, 0.04, 0.011]), [0.04, 0.02, 0.04, 0.033])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).tolist() == []
