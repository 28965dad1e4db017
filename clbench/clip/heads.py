"""Classifiers of image features, beside the text features that classify in CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.core.data import LabelledImages

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


class LinearHead(nn.Module):
    """A classifier ``W f + b`` of one task at a time, and what became of those of earlier tasks.

    Args:
        width: size D of image features.
    """

    weight: nn.Parameter
    """Of the present task's C classes, ``(C, D)``; none between tasks."""
    bias: nn.Parameter
    """``(C,)``."""
    rows: Tensor
    """Of the K classes of earlier tasks, ``(K, D)``."""
    offsets: Tensor
    """Their biases, ``(K,)``."""
    ids: Tensor
    """Their numbers in the whole benchmark, ``(K,)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0, width))
        self.bias = nn.Parameter(torch.zeros(0))
        self.register_buffer("rows", torch.zeros(0, width))
        self.register_buffer("offsets", torch.zeros(0))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "weight", "bias", "rows", "offsets", "ids")

    def start(self, weight: Tensor) -> None:
        """Begin a task with these rows ``(C, D)`` and no bias."""
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(B, C)`` of features ``(B, D)`` among the present task's classes."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight, self.bias)

    @torch.no_grad()
    def keep(self, ids: Sequence[int]) -> None:
        """End a task, whose classes have these numbers in the whole benchmark.

        Of a class that was learned before, the new row stands for the old one.
        """
        new = self.ids.new_tensor(ids)
        others = ~torch.isin(self.ids, new)
        self.rows = torch.cat([self.rows[others], self.weight])
        self.offsets = torch.cat([self.offsets[others], self.bias])
        self.ids = torch.cat([self.ids[others], new])
        self.start(self.weight[:0])

    def among(self, features: Tensor, ids: Sequence[int], others: Tensor) -> Tensor:
        """Logits ``(B, C)`` among any classes: those learned by their rows, all others as given.

        Args:
            features: ``(B, D)``.
            ids: the C numbers of the classes.
            others: ``(C, D)``, rows of classes that were not learned.
        """
        learned, kept = matches(ids, self.ids).nonzero(as_tuple=True)
        weight = others.float().index_put((learned,), self.rows[kept])
        bias = weight.new_zeros(len(ids)).index_put((learned,), self.offsets[kept])
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), weight, bias)


def matches(ids: Sequence[int], learned: Tensor) -> Tensor:
    """Which classes ``(C,)`` are which learned ones ``(K,)``, by their numbers: ``(C, K)`` bool."""
    return learned.new_tensor(ids)[:, None] == learned[None, :]


@torch.no_grad()
def encoded(model: CLIP, images: LabelledImages, batch_size: int) -> tuple[Tensor, Tensor]:
    """Features ``(n, D)`` and labels ``(n,)`` of a training set, in its fixed order."""
    passed = [(model.encode_image(b.images), b.labels) for b in images.batches(batch_size)]
    features, labels = zip(*passed, strict=True)
    return torch.cat(features), torch.cat(labels)
