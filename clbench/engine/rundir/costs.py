"""Time and memory of a run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


class Stopwatch:
    """Adds up seconds per activity, e.g. ``training``, ``evaluation``, ``overhead``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: dict[str, float] = {}

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Add the wall time of the block to an activity; GPU work is waited for."""
        self._running[activity] = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.seconds = self.so_far()
            del self._running[activity]

    def so_far(self) -> dict[str, float]:
        """Seconds per activity, with those of the activities that still go on."""
        now = time.perf_counter()
        seconds = dict(self.seconds)
        for activity, started in self._running.items():
            seconds[activity] = seconds.get(activity, 0.0) + now - started
        return seconds


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux: lets VmHWM start anew
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes since the reset: allocated on the GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        line = next(row for row in status if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
