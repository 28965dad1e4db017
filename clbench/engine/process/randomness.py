"""Every global random generator of the process: seeded, captured, put back, or made exact."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from clbench.core.results.result import RunResult


def seed_everything(seed: int, stage: int) -> None:
    """Seed every global generator for one stage of a run (0: preparation, t: task t).

    Each task starts from its own seed, so a run that goes on after task t draws the same
    numbers as one that was never interrupted.
    """
    mixed = int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - third-party transforms draw from the global state
    torch.manual_seed(mixed)


def capture() -> dict[str, Any]:
    """Where the generators of Python, NumPy, PyTorch and its GPUs stand."""
    version, internal, gauss = random.getstate()
    name, keys, *position = np.random.get_state(legacy=True)  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *position],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def restore(state: Mapping[str, Any]) -> None:
    """Put the generators where `capture` found them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *position))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def same_threads(result: RunResult) -> Iterator[None]:
    """While open, as many threads as the run of a result had: sums depend on how they are cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(result.provenance.get("threads", before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_kernels(wanted: bool) -> Iterator[None]:
    """While open, PyTorch uses kernels that give the same bits every time, on GPUs too."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands one of two values
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
