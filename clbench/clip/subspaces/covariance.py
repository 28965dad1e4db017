"""Means of ``x x^T`` over the tokens that modules receive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.clip.subspaces.gram import gram_matrix
from clbench.core.data import TaskData

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


class Covariance(nn.Module):
    """Uncentred covariance ``(1 / n) sum x x^T`` of streamed features, part of the state."""

    total: Tensor
    """``sum x x^T``, ``(d, d)``; ``(0, 0)`` before features of d numbers are added."""
    count: Tensor
    """How many features were added, ``()`` int64."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(0, 0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        let_grow(self, "total")

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Add features ``(..., d)``."""
        rows = features.reshape(-1, features.shape[-1]).to(self.total.dtype)
        with torch.autocast(rows.device.type, enabled=False):  # squares need full precision
            gram = gram_matrix(rows)
        self.total = self.total + gram if len(self.total) else gram
        self.count += len(rows)

    def mean(self) -> Tensor:
        """The mean ``(d, d)`` of what was added."""
        return self.total / self.count

    def take(self) -> Tensor:
        """The mean ``(d, d)`` of what was added, which is forgotten."""
        mean = self.mean()
        self.total = self.total.new_zeros(0, 0)
        self.count.zero_()
        return mean


class Collector(Protocol):
    """What features are streamed into."""

    def add(self, features: Tensor, /) -> None:
        """Add features ``(B, L, d)``, or ``(n, d)`` where some tokens are chosen."""


@contextmanager
def observing(
    collectors: Mapping[nn.Module, Collector],
    chosen: Tensor | None = None,
    *,
    outputs: bool = False,
) -> Iterator[None]:
    """While open, every module adds its first input to the collector beside it.

    Args:
        collectors: by module, whose first input is ``(B, L, d)``.
        chosen: ``(B, L)`` bool, the tokens that count; None means all.
        outputs: add what modules return instead.
    """

    def hook(collector: Collector, features: Tensor) -> None:
        collector.add(features if chosen is None else features[chosen])

    handles = [
        module.register_forward_hook(
            lambda _, args, output, own=collector: hook(own, output if outputs else args[0])
        )
        for module, collector in collectors.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def observe_task(
    model: CLIP,
    collectors: Mapping[nn.Module, Collector],
    data: TaskData,
    batch_size: int,
    *,
    padding: bool = False,
) -> None:
    """Add what modules receive from a task: all its training images, its class prompts once.

    Args:
        model: holds the modules; it is used as it is, in training or evaluation mode.
        collectors: see `observing`.
        data: of the task.
        batch_size: images per pass.
        padding: count what stands behind the end of a prompt, up to the encoder's full length.
    """
    prompts: Tensor | None = None
    with observing(collectors):
        for batch in data.batches(batch_size):
            model.encode_image(batch.images)
            prompts = batch.prompts
    assert prompts is not None
    prompts = prompts.to(model.device)
    if padding:
        with observing(collectors):
            model.encode_text(padded(model, prompts))
        return
    positions = torch.arange(prompts.shape[1], device=prompts.device)
    with observing(collectors, positions <= prompts.argmax(dim=1, keepdim=True)):
        model.encode_text(prompts)


def padded(model: CLIP, tokens: Tensor) -> Tensor:
    """Tokens ``(N, L)`` with zeros up to the full length that the text encoder takes."""
    return F.pad(tokens, (0, model.context_length - tokens.shape[1]))
