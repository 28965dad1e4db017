"""What the machine can do, and how much time, memory and operations a function needs."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from clbench.engine.rundir.costs import peak_memory, reset_peak_memory

ADDMM = torch.ops.aten.addmm_


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call; GPU work is waited for."""
    synchronise(device)
    started = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    functions: Sequence[Callable[[], object]], repeats: int, device: torch.device, warmup: int = 1
) -> list[list[float]]:
    """Times of functions called in turn, so that a change of the machine's pace meets all."""
    for function in functions:
        for _ in range(warmup):
            function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for taken, function in zip(times, functions, strict=True):
            taken.append(seconds(function, device))
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the ratios of calls that followed each other."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def peak(function: Callable[[], object], device: torch.device) -> int:
    """Peak memory in bytes of a call, weights and libraries included."""
    release()
    reset_peak_memory(device)
    function()
    return peak_memory(device)


def alone(function: Callable[..., int], *arguments: object) -> int:
    """A function's result from a process of its own, where nothing has left memory behind."""
    threads = (torch.get_num_threads(),)
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, threads) as process:
        return process.submit(function, *arguments).result()


def release() -> None:
    """Give memory that nothing uses back to the system."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def operations(function: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and attention in a call."""
    counter = FlopCounterMode(display=False, custom_mapping={ADDMM: _addmm_operations})
    with counter:
        function()
    return counter.get_total_flops()


def _addmm_operations(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    """The counter knows `addmm`, but not the form that adds in place."""
    (rows, inner), (_, columns) = shapes[1], shapes[2]
    return int(2 * rows * inner * columns)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 3072) -> float:
    """Operations per second of a large matrix product, the best of several."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = [seconds(lambda: left @ right, device) for _ in range(6)]
    return 2 * side**3 / min(times)


def bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """Bytes read and written per second by a copy."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(6)]
    return 2 * source.nbytes / min(times)


def describe(device: torch.device) -> dict[str, Any]:
    """Name, cores and measured rates."""
    units = has_bfloat16_units(device)
    rates = {
        "fp32": matrix_rate(device, torch.float32),
        "fp64": matrix_rate(device, torch.float64, 1536),
        # Where bfloat16 is emulated, a large product takes minutes.
        "bf16": matrix_rate(device, torch.bfloat16, 3072 if units else 512),
    }
    return {
        **identify(device),
        "bf16_units": units,
        "operations_per_second": rates,
        "bytes_per_second": bandwidth(device),
    }


def identify(device: torch.device) -> dict[str, Any]:
    """Name and cores, for measurements of ratios only."""
    return {
        "device": _name(device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line for line in lines if line.startswith("model name"))
        return f"{model.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 have hardware of their own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return "amx_bf16" in flags or "avx512_bf16" in flags
    return False


def available_memory(device: torch.device) -> int:
    """Bytes that this process may hold at most, those it holds already included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return int(line.split()[1]) * 1024 + resident * os.sysconf("SC_PAGE_SIZE")
    return 2**62
