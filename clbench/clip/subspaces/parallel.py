"""Several decompositions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

AT_ONCE: Final = 4
"""Decompositions at a time, which bounds their memory."""
FROM: Final = 256
"""Size from which a matrix keeps a thread busy for long enough."""


def decompose_each(decompose: Callable[[Tensor], T], matrices: Sequence[Tensor]) -> list[T]:
    """Apply a decomposition to every matrix, on the CPU to several large ones at a time.

    Half of a decomposition is bound by memory and gains little from a second thread, so threads
    are better spent on different matrices. PyTorch's batched decompositions take them one by one.

    Args:
        decompose: a function of one matrix that uses no random numbers.
        matrices: in any shapes.
    """
    threads = torch.get_num_threads()
    workers = min(threads, AT_ONCE, len(matrices))
    small = any(m.is_cuda or min(m.shape) < FROM for m in matrices)
    if workers < 2 or small:
        return [decompose(matrix) for matrix in matrices]
    share = threads // workers
    try:
        # The number of threads is set per thread for OpenMP, but for all of MKL.
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(share)) as pool:
            return list(pool.map(_without_gradients(decompose), matrices))
    finally:
        torch.set_num_threads(threads)


def _without_gradients(function: Callable[[Tensor], T]) -> Callable[[Tensor], T]:
    """Gradient mode is a property of the thread, so each has to switch it off."""

    def wrapped(matrix: Tensor) -> T:
        with torch.no_grad():
            return function(matrix)

    return wrapped
