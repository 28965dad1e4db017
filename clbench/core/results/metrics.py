"""Continual-learning metrics of an accuracy matrix, as pure functions.

`values` always has shape ``(T + 1, T)``. With tasks counted from 1, ``A[t][j]`` of the formulas
is ``values[t, j - 1]``: the accuracy, as a fraction, on task j after learning t tasks. Row 0 is
measured before any training. NaN means missing, and a metric that needs a missing cell is NaN,
as is one that is a mean over nothing (the transfer of a single task).

The examples share this matrix of three tasks:

>>> EXAMPLE
array([[0.2, 0.3, 0.4],
       [0.8, 0.4, 0.5],
       [0.7, 0.9, 0.6],
       [0.6, 0.8, 1. ]])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EXAMPLE = np.array([[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [0.7, 0.9, 0.6], [0.6, 0.8, 1.0]])


def transfer(values: ArrayLike) -> float:
    """Accuracy on tasks not yet learned: the mean over tasks 2 to T of their column mean.

    ZSCL's definition, ``mean_{j=2..T} mean_{1<=t<j} A[t][j]``.

    >>> round(transfer(EXAMPLE), 4)
    0.475
    """
    return _mean(transfer_per_task(values)[1:])


def transfer_row_mean(values: ArrayLike) -> float:
    """The other reading of transfer, ``mean_{t=1..T-1} mean_{j>t} A[t][j]``.

    It weighs late tasks more and can rank methods differently, so it has its own name.

    >>> round(transfer_row_mean(EXAMPLE), 4)
    0.525
    """
    learned = _learned(values)
    unseen = np.triu(np.ones(learned.shape, dtype=bool), k=1)
    totals = np.where(unseen, learned, 0.0).sum(axis=1)[:-1]
    return _mean(totals / np.arange(len(learned) - 1, 0, -1))


def average(values: ArrayLike) -> float:
    """Mean of all T x T cells after training began, ``mean_{t,j} A[t][j]`` with t >= 1.

    >>> round(average(EXAMPLE), 4)
    0.7
    """
    return _mean(_learned(values))


def last(values: ArrayLike) -> float:
    """Mean accuracy after the last task, ``mean_j A[T][j]``.

    >>> round(last(EXAMPLE), 4)
    0.8
    """
    return _mean(last_per_task(values))


def learned(values: ArrayLike) -> float:
    """Accuracy on each task right after it was learned, ``mean_t A[t][t]``.

    Learning accuracy in the words of Riemer et al. (2019); backward transfer is what becomes of it.

    >>> round(learned(EXAMPLE), 4)
    0.9
    """
    return _mean(np.diagonal(_learned(values)))


def forgetting(values: ArrayLike) -> float:
    """Loss since a task's best moment, ``mean_{j<T} (max_{j<=t<T} A[t][j] - A[T][j])``.

    Chaudhry et al. (2018), with the maximum taken from the task's own training on.

    >>> round(forgetting(EXAMPLE), 4)
    0.15
    """
    learned = _learned(values)
    since_learned = np.tril(np.ones(learned.shape, dtype=bool))[:-1]
    best = np.where(since_learned, learned[:-1], -np.inf).max(axis=0, initial=-np.inf)
    return _mean((best - learned[-1])[:-1])


def backward_transfer(values: ArrayLike) -> float:
    """Change since a task was learned, ``mean_{j<T} (A[T][j] - A[j][j])``.

    >>> round(backward_transfer(EXAMPLE), 4)
    -0.15
    """
    learned = _learned(values)
    return _mean((learned[-1] - np.diagonal(learned))[:-1])


def forward_transfer(values: ArrayLike) -> float:
    """Gain before a task is learned, ``mean_{j>1} (A[j-1][j] - A[0][j])``.

    >>> round(forward_transfer(EXAMPLE), 4)
    0.15
    """
    accuracy = check_values(values)
    return _mean((np.diagonal(accuracy) - accuracy[0])[1:])


def zero_shot(values: ArrayLike) -> float:
    """Mean accuracy before training, ``mean_j A[0][j]``.

    >>> round(zero_shot(EXAMPLE), 4)
    0.3
    """
    return _mean(check_values(values)[0])


def transfer_per_task(values: ArrayLike) -> Array:
    """Mean accuracy on each task before it is learned, ``mean_{1<=t<j} A[t][j]``.

    Returns:
        Shape ``(T,)``; the first task has none (NaN).

    >>> transfer_per_task(EXAMPLE)
    array([ nan, 0.4 , 0.55])
    """
    learned = _learned(values)
    unseen = np.triu(np.ones(learned.shape, dtype=bool), k=1)
    means = np.full(len(learned), math.nan)
    means[1:] = np.where(unseen, learned, 0.0).sum(axis=0)[1:] / np.arange(1, len(learned))
    return means


def average_per_task(values: ArrayLike) -> Array:
    """Mean accuracy on each task over all steps, ``mean_{t>=1} A[t][j]``, shape ``(T,)``.

    >>> average_per_task(EXAMPLE)
    array([0.7, 0.7, 0.7])
    """
    return np.asarray(_learned(values).mean(axis=0))


def last_per_task(values: ArrayLike) -> Array:
    """Accuracy on each task after the last one, ``A[T][j]``, shape ``(T,)``.

    >>> last_per_task(EXAMPLE)
    array([0.6, 0.8, 1. ])
    """
    return np.asarray(_learned(values)[-1])


def incremental_accuracy(values: ArrayLike, counts: Sequence[int]) -> Array:
    """Accuracy over all tasks learned so far, after each step.

    Class-incremental learning: step t scores the test images of tasks 1 to t, each image once,
    so tasks weigh by their number of images. Cells of tasks not yet learned are not read.

    Args:
        values: shape ``(T + 1, T)``.
        counts: test images of each task.

    Returns:
        Shape ``(T,)``.

    >>> incremental_accuracy(EXAMPLE, counts=[100, 100, 200])
    array([0.8 , 0.8 , 0.85])
    """
    learned = _learned(values)
    weights = np.asarray(counts, dtype=np.float64)
    if weights.shape != learned.shape[:1]:
        raise ValueError(f"{weights.size} counts for {len(learned)} tasks")
    correct = np.where(np.tril(np.ones(learned.shape, dtype=bool)), learned * weights, 0.0)
    return np.asarray(correct.sum(axis=1) / np.cumsum(weights))


def check_values(values: ArrayLike) -> Array:
    """The values as a float array.

    Raises:
        ValueError: the shape is not ``(T + 1, T)`` with T >= 1.
    """
    accuracy = np.asarray(values, dtype=np.float64)
    if accuracy.ndim != 2 or accuracy.shape[0] != accuracy.shape[1] + 1 or accuracy.size == 0:
        raise ValueError(f"an accuracy matrix has shape (T + 1, T), not {accuracy.shape}")
    return accuracy


def _learned(values: ArrayLike) -> Array:
    """Rows 1 to T, shape ``(T, T)``."""
    return check_values(values)[1:]


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan
