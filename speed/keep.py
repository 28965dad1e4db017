"""Which pieces of cleverness pay: each alone replaced by what PyTorch has, the rest as shipped.

The plain form of a low-rank layer is four lines, with PyTorch's dropout and its autograd::

    y = F.linear(x, W, b)
    z = F.linear(F.dropout(x, p, training), A)
    z = F.linear(z, M)
    y = y + scale * F.linear(z, B)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters import lowrank
from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.layers import attention
from clbench.clip.layers.dropout import Kept
from clbench.methods.lora import LoRA
from clbench.methods.nusa import NuSA
from speed import steps as steps_module
from speed.machine import alone, alternate, peak, ratio, release
from speed.setting import RandomTask, Size, build_model, class_texts, random_images
from speed.steps import NUSA_LR, Step, shipped_step

METHODS: dict[str, type[NuSA] | type[LoRA]] = {"NuSA-CL": NuSA, "LoRA": LoRA}
"""One trains M only, the other A and B."""
SHIPPED = "shipped"
STEPS_OF_PEAK = 2
CALLS_ON_GPU = 10
"""Steps are short there: as many times more of them are timed, and as many warm up."""


def compare(
    name: str, size: Size, classes: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Time and peak memory of a method's step in each variant, over those of the shipped step."""
    step = method_step(name, size, classes, device)

    def peak_of(variant: str) -> int:
        # What a GPU's allocator has given out is the same in any process.
        if device.type == "cuda":
            return _peak(step, variant, device)
        return alone(peak_alone, name, variant, size, classes, device)

    peaks = {variant: peak_of(variant) for variant in VARIANTS}
    calls = [partial(_call, step, variant) for variant in VARIANTS]
    on_gpu = device.type == "cuda"
    count, warmup = (CALLS_ON_GPU * repeats, CALLS_ON_GPU) if on_gpu else (repeats, 0)
    times = dict(zip(VARIANTS, alternate(calls, count, device, warmup), strict=True))
    release()
    rows = [
        {
            "variant": variant,
            "seconds": times[variant],
            "peak_bytes": peaks[variant],
            "time_ratio": ratio(times[variant], times[SHIPPED]),
            "peak_ratio": peaks[variant] / peaks[SHIPPED],
        }
        for variant in VARIANTS
    ]
    return {"method": name, "rows": rows}


def method_step(
    name: str, size: Size, classes: int, device: torch.device, dropout: float = 0.25
) -> Step:
    """A step of a method on a random model, all of whose factors are random.

    What a step costs does not depend on the factors, so no weight is decomposed for them.
    """
    model = build_model(size, device)
    method = METHODS[name](rank=size.rank, dropout=dropout)
    method.prepare(model)
    generator = torch.Generator().manual_seed(0)
    for adapter in method.adapters.values():
        factors = dict(adapter.named_parameters(recurse=False))
        adapter.set_factors(
            **{n: 0.1 * torch.randn(f.shape, generator=generator) for n, f in factors.items()}
        )
    method.to(device).train()
    task = RandomTask(model, class_texts(classes), random_images(model, size.batch, 1))
    batch = next(task.batches(size.batch))
    return shipped_step(method, lambda: method.loss(batch), NUSA_LR)


def peak_alone(name: str, variant: str, size: Size, classes: int, device: torch.device) -> int:
    """Peak memory of a variant's steps, to be called in a process of its own."""
    return _peak(method_step(name, size, classes, device), variant, device)


def _peak(step: Step, variant: str, device: torch.device) -> int:
    return peak(lambda: [_call(step, variant) for _ in range(STEPS_OF_PEAK)], device)


def _call(step: Step, variant: str) -> float:
    with VARIANTS[variant]():
        return step()


def _four_lines(dropout: Callable[[LowRankLinear, Tensor], Tensor]) -> AbstractContextManager[Any]:
    """Low-rank layers by autograd, one after the other, with a given dropout."""

    def layer(module: LowRankLinear, x: Tensor) -> Tensor:
        z = F.linear(dropout(module, x), module.down)
        if module.core is not None:
            z = F.linear(z, module.core)
        y = F.linear(x, module.base.weight, module.base.bias)
        return y + module.scale * F.linear(z, module.up)

    def products(layers: Sequence[LowRankLinear], x: Tensor) -> Sequence[Tensor]:
        return [layer(module, x) for module in layers]

    return mock.patch.object(lowrank, "_products", products)


def _shipped_dropout(module: LowRankLinear, x: Tensor) -> Tensor:
    return module.dropout(x)  # type: ignore[no-any-return]


def _pytorchs_dropout(module: LowRankLinear, x: Tensor) -> Tensor:
    return F.dropout(x, module.dropout.p, module.training)


def _one_by_one() -> AbstractContextManager[Any]:
    """Query, key and value are called one after the other."""

    def apply(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in layers]

    return mock.patch.object(attention, "apply_layers", apply)


def _bool_masks() -> AbstractContextManager[Any]:
    """Masks are drawn by PyTorch and kept as they are, a byte per element."""

    def drawn(shape: torch.Size, device: torch.device, p: float) -> Kept:
        return Kept(torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - p), shape)

    return mock.patch.object(Kept, "drawn", drawn)


def _systems_allocator() -> AbstractContextManager[Any]:
    """Freed memory goes back to the system."""
    return mock.patch.object(steps_module, "freed_memory_kept", return_value=nullcontext())


@contextmanager
def _all_plain() -> Iterator[None]:
    with ExitStack() as stack:
        for plain in (_four_lines(_pytorchs_dropout), _systems_allocator()):
            stack.enter_context(plain)
        yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "own backward pass of low-rank layers": lambda: _four_lines(_shipped_dropout),
    "query, key and value as one node": _one_by_one,
    "own dropout masks": _bool_masks,
    "freed memory stays in the process": _systems_allocator,
    "low-rank layers in four lines: the first three": lambda: _four_lines(_pytorchs_dropout),
    "all four": _all_plain,
    SHIPPED: nullcontext,
}
"""What is replaced by its plain counterpart while the context lasts."""
