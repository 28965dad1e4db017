"""What each shortcut alone gains: a training step of NuSA-CL with one of them taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

from open_clip import transformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.layers import attention
from speed import steps as steps_module
from speed.machine import alternate, peak, ratio
from speed.steps import NuSASteps

Without = Callable[[NuSASteps], AbstractContextManager[None]]


def gains(steps: NuSASteps, classes: int, repeats: int) -> list[dict[str, Any]]:
    """Time and memory of a step without each shortcut over those of the step as shipped."""
    device = steps.model.device
    shipped = steps.pair(classes).shipped
    base = peak(shipped, device)
    rows = []
    for name, without in SHORTCUTS.items():

        def step(without: Without = without) -> float:
            with without(steps):
                return shipped()

        highest = peak(step, device)
        slow, fast = alternate([step, shipped], repeats, device, warmup=0)
        rows.append(
            {
                "shortcut": name,
                "without_seconds": slow,
                "shipped_seconds": fast,
                "ratio": ratio(slow, fast),
                "without_peak_bytes": highest,
                "shipped_peak_bytes": base,
            }
        )
    return rows


@contextmanager
def whole_context(steps: NuSASteps) -> Iterator[None]:
    """All prompts are padded to the context length."""
    model = steps.model
    encode, length = model.encode_text, model.context_length

    def padded(tokens: Tensor) -> Tensor:
        return encode(F.pad(tokens, (0, length - tokens.shape[1])))

    with mock.patch.object(model, "encode_text", padded):
        yield


@contextmanager
def materialised_update(steps: NuSASteps) -> Iterator[None]:
    """Updates are built in full, with PyTorch's dropout."""

    def forward(self: LowRankLinear, x: Tensor) -> Tensor:
        down = self.down if self.core is None else self.core @ self.down
        dropped = F.dropout(x, self.dropout.p, self.training)
        return self.base(x) + F.linear(dropped, self.scale * self.up @ down)  # type: ignore[no-any-return]

    with mock.patch.object(LowRankLinear, "forward", forward), one_layer_at_a_time(steps):
        yield


@contextmanager
def one_layer_at_a_time(_: NuSASteps) -> Iterator[None]:
    """Query, key and value are called one after the other."""

    def apply(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in layers]

    with mock.patch.object(attention, "apply_layers", apply):
        yield


@contextmanager
def open_clips_gelu(steps: NuSASteps) -> Iterator[None]:
    """The activation as a product of three operations."""
    plain = transformer.QuickGELU()
    mlps: list[Any] = [b.mlp for encoder in ("vision", "text") for b in steps.model.blocks(encoder)]
    shipped = [mlp.gelu for mlp in mlps]
    for mlp in mlps:
        mlp.gelu = plain
    try:
        yield
    finally:
        for mlp, gelu in zip(mlps, shipped, strict=True):
            mlp.gelu = gelu


@contextmanager
def systems_allocator(_: NuSASteps) -> Iterator[None]:
    """Freed memory goes back to the system."""
    with mock.patch.object(steps_module, "freed_memory_kept", return_value=nullcontext()):
        yield


SHORTCUTS: dict[str, Without] = {
    "prompts cut to the longest": whole_context,
    "low-rank products, own backward pass, fast dropout": materialised_update,
    "query, key and value as one node of the graph": one_layer_at_a_time,
    "QuickGELU that keeps its input only": open_clips_gelu,
    "freed memory stays in the process": systems_allocator,
}
