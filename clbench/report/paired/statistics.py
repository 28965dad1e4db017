"""Statistics of two methods on the same test images and seeds, as pure functions.

All metrics compared here are linear in the answers to single images: with ``c[t, j, i]`` whether
image i of task j is correct after t tasks, and N_j images of task j,

    metric = sum_{t,j} w[t, j] * mean_i c[t, j, i]

(Transfer, Avg, Last, Learned and BWT differ in the weights w, see `cell_weights`; Forgetting, which
takes the best of many rows, has none). So the difference of two methods is a sum over tasks of
means over images of

    d_j[i] = mean over seeds of sum_t w[t, j] * (a[t, j, i] - b[t, j, i]),

and all statistics are those of the numbers d_j[i]. They answer: would the difference hold for
other test images of these tasks? They say nothing about other training seeds; for that, look at
the spread over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clbench.core.results.correctness import CorrectRow
from clbench.core.results.metrics import Array
from clbench.core.task import Setting

RESAMPLES = 10_000
CONFIDENCE = 0.95
Rows = Mapping[int, CorrectRow]
"""All rows of a run: number of tasks learned to which images are correct."""


def cell_weights(setting: Setting, counts: Sequence[int]) -> dict[str, Array]:
    """The weight of every cell of rows 1 to T in each metric: ``(T, T)`` arrays.

    Args:
        setting: class- and domain-incremental runs have no Transfer, and weigh tasks by their
            images.
        counts: test images of each of the T tasks.

    Returns:
        `transfer` (if defined and T > 1), `average`, `last`, `learned` and `backward_transfer` (if
        T > 1), so that a metric is the sum of weights times accuracies.

    >>> cell_weights(Setting.TASK_GIVEN, [10, 10, 10])["transfer"]
    array([[0.  , 0.5 , 0.25],
           [0.  , 0.  , 0.25],
           [0.  , 0.  , 0.  ]])
    """
    images = np.asarray(counts, dtype=np.float64)
    size = len(images)
    weights: dict[str, Array] = {}
    last = np.zeros((size, size))
    if setting.over_images:
        seen = np.tril(np.ones((size, size))) * images
        steps = seen / seen.sum(axis=1, keepdims=True)
        last[-1] = steps[-1]
        weights |= {"average": steps / size, "last": last}
    else:
        last[-1] = 1 / size
        if size > 1:
            rows_before = np.maximum(np.arange(size), 1)
            unseen = np.triu(np.ones((size, size)), k=1)
            weights["transfer"] = unseen / rows_before / (size - 1)
        weights |= {"average": np.full((size, size), 1 / size**2), "last": last}
    weights["learned"] = np.eye(size) / size
    if size > 1:
        change = -np.eye(size)
        change[-1] += 1
        change[:, -1] = 0
        weights["backward_transfer"] = change / (size - 1)
    return weights


def image_contributions(runs: Sequence[Rows], tasks: Sequence[str], weights: Array) -> list[Array]:
    """What each test image adds to a metric, averaged over seeds.

    Args:
        runs: all rows of one method, one entry per seed.
        tasks: the T tasks in training order.
        weights: ``(T, T)``, from `cell_weights`. Cells of weight zero are not read.

    Returns:
        For each task ``(N_j,)``, or ``(1,)`` where no cell has a weight; the metric is the sum of
        their means.
    """
    found = []
    for j, task in enumerate(tasks):
        cells = np.flatnonzero(weights[:, j]).tolist()
        parts = [weights[t, j] * rows[t + 1][task] for rows in runs for t in cells]
        found.append(np.sum(parts, axis=0) / len(runs) if parts else np.zeros(1))
    return found


def image_differences(
    first: Sequence[Rows], second: Sequence[Rows], tasks: Sequence[str], weights: Array
) -> list[Array]:
    """What each test image adds to the difference first minus second, averaged over seeds.

    Args:
        first: all rows of one method, one entry per seed.
        second: those of the other, of the same seeds.
        tasks: see `image_contributions`.
        weights: see `image_contributions`.

    Returns:
        For each task ``d_j``, shape ``(N_j,)``; the difference is the sum of their means.
    """
    both = (image_contributions(runs, tasks, weights) for runs in (first, second))
    return [a - b for a, b in zip(*both, strict=True)]


def bootstrap_interval(
    differences: Sequence[ArrayLike], *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a sum of means over images.

    Args:
        differences: from `image_differences`.
        confidence: share of the resamples between the limits.
        seed: of the resampling, see `resampled`.

    >>> bootstrap_interval([[0.5, 0.5]])
    (0.5, 0.5)
    """
    columns = [np.asarray(values, dtype=np.float64)[:, None] for values in differences]
    ((low, high),) = limits(resampled(columns, seed=seed), confidence).tolist()
    return low, high


def limits(totals: Array, confidence: float = CONFIDENCE) -> Array:
    """The quantiles ``(1 -/+ confidence) / 2`` of each column: ``(..., K)`` to ``(K, 2)``."""
    return np.quantile(totals, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0).T


def resampled(contributions: Sequence[Array], *, seed: int = 0) -> Array:
    """Sums of means over images, as they might be with other test images.

    In every resample each task draws as many images as it has, with replacement, from its own
    images; an image takes its answers by all methods, all seeds and all rows along, so that
    resampling is paired. Images with the same numbers are interchangeable: how often each
    distinct one is drawn is one multinomial draw, which gives the distribution of the plain
    bootstrap without drawing single images.

    Args:
        contributions: for each task, ``(N_j, K)``: what its images add to each of K sums.
        seed: of the resampling; the same input and seed give the same numbers.

    Returns:
        ``(RESAMPLES, K)``.
    """
    generator = np.random.default_rng(seed)
    totals = np.zeros((RESAMPLES, contributions[0].shape[1] if contributions else 1))
    for values in contributions:
        distinct, counts = np.unique(values.round(12), axis=0, return_counts=True)
        images = counts.sum()
        parts = 1 + RESAMPLES * len(distinct) // 4_000_000  # at most 32 MB at a time
        for part in np.array_split(np.arange(RESAMPLES), parts):
            drawn = generator.multinomial(images, counts / images, size=len(part))
            totals[part] += drawn @ distinct / images
    return totals


def sign_flip_p(differences: ArrayLike) -> float:
    """Exact two-sided p-value of the paired permutation test of two methods on one task.

    Under the null hypothesis the methods are interchangeable on every image: swapping them
    flips the sign of the image's difference, for all seeds at once, so seeds of one image need
    not be independent. All 2^N sign patterns count, by convolution of binomial distributions.
    With one seed this is McNemar's exact test.

    Args:
        differences: whole numbers, ``(N,)``: the number of seeds in which the first method is
            correct on an image minus that of the second.

    >>> round(sign_flip_p([1, 1, 1, 1, 1, -1, 0, 0]), 10)  # McNemar: 2 * (1 + 6) / 2**6
    0.21875
    """
    from scipy.stats import binom

    values = np.asarray(differences)
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    # Sum of flipped values = 2 * (sum of those that stay positive) - total.
    density, start = np.ones(1), 0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        positive = binom.pmf(np.arange(count + 1), count, 0.5)
        known = np.flatnonzero(positive)  # the tails of large counts underflow to zero
        low, high = int(known[0]), int(known[-1])
        spaced = np.zeros((high - low) * size + 1)
        spaced[::size] = positive[low : high + 1]
        density, start = np.convolve(density, spaced), start + low * size
    sums = 2 * (start + np.arange(len(density))) - int((sizes * counts).sum())
    return min(1.0, float(density[np.abs(sums) >= abs(int(values.sum()))].sum()))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """P-values corrected for their number by Holm's step-down method.

    The k-th smallest of m is multiplied by ``m - k + 1``, made at least as large as those
    before it and at most 1. Rejecting where the result is below 0.05 keeps the probability of
    any false rejection among the m tests below 0.05.

    >>> holm([0.01, 0.04, 0.03]).round(10)
    array([0.03, 0.06, 0.06])
    """
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
