"""Memory that is freed in one training step and needed again in the next.

Assumes glibc, and that no other process needs the memory between two steps: what a step has freed
stays with the process until the run ends. Elsewhere nothing is done, which is checked once per
process. ``CLBENCH_PLAIN=allocator`` switches it off.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from clbench.core.plain import is_plain

# Parameters of glibc's mallopt, and the defaults that mallopt itself cannot restore.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * 2**20}
DEFAULT = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 2**10, TOP_PAD: 0}


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory in the process while the block runs, on the CPU under glibc.

    By default every large tensor is mapped from the system and given back when it dies, so that
    each step takes millions of page faults for memory that it had a moment before: half the time
    of an elementwise operation. GPUs have PyTorch's own cache.
    """
    if device.type != "cpu" or not _is_glibc() or is_plain("allocator"):
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, KEEP)
    try:
        yield
    finally:
        _set(libc, DEFAULT)


def give_back(device: torch.device) -> None:
    """Give freed memory back to the system now: what needed it will not come again soon."""
    if device.type == "cpu" and _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
