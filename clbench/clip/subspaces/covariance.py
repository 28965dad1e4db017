"""Means of ``x x^T`` over the tokens that modules receive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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

    def take(self) -> Tensor:
        """The mean ``(d, d)`` of what was added, which is forgotten."""
        mean = self.total / self.count
        self.total = self.total.new_zeros(0, 0)
        self.count.zero_()
        return mean


@contextmanager
def observing(
    covariances: Mapping[nn.Module, Covariance], chosen: Tensor | None = None
) -> Iterator[None]:
    """While open, every module adds its first input to the covariance beside it.

    Args:
        covariances: by module, whose first input is ``(B, L, d)``.
        chosen: ``(B, L)`` bool, the tokens that count; None means all.
    """

    def hook(covariance: Covariance, args: tuple[Tensor, ...]) -> None:
        covariance.add(args[0] if chosen is None else args[0][chosen])

    handles = [
        module.register_forward_pre_hook(lambda _, args, own=covariance: hook(own, args))
        for module, covariance in covariances.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def observe_task(
    model: CLIP, covariances: Mapping[nn.Module, Covariance], data: TaskData, batch_size: int
) -> None:
    """Add what modules receive from a task: all its training images, its class prompts once.

    Of a prompt, the tokens up to the end of the text count, and no padding behind it.

    Args:
        model: holds the modules; it is used as it is, in training or evaluation mode.
        covariances: see `observing`.
        data: of the task.
        batch_size: images per pass.
    """
    prompts: Tensor | None = None
    with observing(covariances):
        for batch in data.batches(batch_size):
            model.encode_image(batch.images)
            prompts = batch.prompts
    assert prompts is not None
    prompts = prompts.to(model.device)
    positions = torch.arange(prompts.shape[1], device=prompts.device)
    with observing(covariances, positions <= prompts.argmax(dim=1, keepdim=True)):
        model.encode_text(prompts)
