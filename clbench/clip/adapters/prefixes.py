"""Learned keys and values beside those of an attention, a set per task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import GrowingList
from clbench.clip.layers.together import declare


@declare(pure=True)
class Prefix(nn.Module):
    """Keys and values of one task; values start at zero, so that nothing changes at first.

    Args:
        length: how many.
        width: of the attention.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(length, width))
        self.values = nn.Parameter(torch.zeros(length, width))


@declare(pure=True)
class Prefixes(nn.Module):
    """Adds to what the heads attended to: ``w softmax(q K_t^T / sqrt(d_h)) V_t``.

    The softmax is one of its own, so the attention to the input stays as it was. Keys and values
    are used as they are, without the attention's projections; no mask applies to them.

    Goes into `clbench.clip.layers.attention.SplitAttention.beside`.

    Args:
        length: keys and values of a task.
        width: of the attention.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.sets = GrowingList(lambda: Prefix(length, width))
        self.chosen: Tensor | int | None = None
        """The task t of all inputs, or of each, ``(B,)``; None for no prefix."""
        self.weight: Tensor | float = 1.0
        """w of all inputs, or of each, ``(B,)``."""

    def grow(self, generator: torch.Generator) -> Prefix:
        """Begin a task: keys uniform in (-1, 1), values zero."""
        prefix = cast(Prefix, self.sets.grow())
        with torch.no_grad():
            prefix.keys.copy_(torch.rand(prefix.keys.shape, generator=generator) * 2 - 1)
            prefix.values.zero_()
        return prefix

    def forward(self, queries: Tensor, attended: Tensor) -> Tensor:
        """Add the prefix's share.

        Args:
            queries: ``(B, heads, L, d_h)``.
            attended: ``(B, heads, L, d_h)``, what the attention itself found.
        """
        if self.chosen is None:
            return attended
        keys, values = self._heads("keys", queries), self._heads("values", queries)
        added = F.scaled_dot_product_attention(queries, keys, values)
        if isinstance(self.weight, Tensor):
            return attended + self.weight.to(added.dtype).view(-1, 1, 1, 1) * added
        return attended + self.weight * added

    def _heads(self, part: str, queries: Tensor) -> Tensor:
        """Keys or values of each input, ``(B, heads, length, d_h)``."""
        batch, heads, _, size = queries.shape
        if isinstance(self.chosen, Tensor):
            rows = torch.stack([getattr(prefix, part) for prefix in self.sets])[self.chosen]
        else:
            assert self.chosen is not None
            rows = getattr(self.sets[self.chosen], part)[None]
        split = rows.to(queries.dtype).view(len(rows), -1, heads, size).transpose(1, 2)
        return split.expand(batch, -1, -1, -1)


def add_prefixes(blocks: Iterable[nn.Module], length: int) -> list[Prefixes]:
    """Put prefixes into the attention of residual attention blocks."""
    added = []
    for block in cast("Iterable[Any]", blocks):
        block.attn.beside = Prefixes(length, block.attn.embed_dim)
        added.append(block.attn.beside)
    return added


@contextmanager
def choosing(
    prefixes: Iterable[Prefixes], chosen: Tensor | int | None, weight: Tensor | float = 1.0
) -> Iterator[None]:
    """While open, inputs get these prefixes with these weights; none before and afterwards."""
    each = list(prefixes)
    choose(each, chosen, weight)
    try:
        yield
    finally:
        choose(each, None)


def choose(
    prefixes: Iterable[Prefixes], chosen: Tensor | int | None, weight: Tensor | float = 1.0
) -> None:
    """From now on, inputs get these prefixes with these weights.

    Args:
        prefixes: of L blocks.
        chosen: the task of all inputs, or of each, ``(B,)``; None for no prefix.
        weight: of all inputs, or of each, ``(B,)``, or of each in each block, ``(L, B)``.
    """
    for i, one in enumerate(prefixes):
        one.chosen, one.weight = chosen, weight
        if isinstance(weight, Tensor) and weight.ndim > 1:
            one.weight = weight[i]
