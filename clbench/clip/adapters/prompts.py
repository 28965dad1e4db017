"""Learned tokens that a block's attention sees beside its input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from clbench.clip.layers.attention import SplitAttention
from clbench.clip.layers.together import declare


@declare(pure=True, ignored=("_norm",))  # which is part of the same block
class Prompts(nn.Module):
    """Prompts that an attention sees beside its input, after the block's first norm like it.

    They ask for nothing and are gone behind the attention. Only for encoders without a mask.

    Goes into `clbench.clip.layers.attention.SplitAttention.seen`.

    Args:
        norm: what the block applies to its input before.
        count: how many.
        width: of the attention.
    """

    def __init__(self, norm: nn.Module, count: int, width: int) -> None:
        super().__init__()
        self._norm = (norm,)  # not a part of this module
        self.tokens = nn.Parameter(torch.zeros(count, width))

    def draw(self, generator: torch.Generator) -> None:
        """Give the prompts values uniform in (-1, 1)."""
        with torch.no_grad():
            self.tokens.copy_(torch.rand(self.tokens.shape, generator=generator) * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` to ``(B, L + count, D)``, the prompts last."""
        prompts = self._norm[0](self.tokens).to(x.dtype)
        return torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)


def add_prompts(blocks: Iterable[nn.Module], count: int) -> list[SplitAttention]:
    """Let the attention of residual attention blocks see prompts, zeros as yet; the attentions."""
    added = []
    for block in cast("Iterable[Any]", blocks):
        block.attn.seen = Prompts(block.ln_1, count, block.attn.embed_dim)
        added.append(cast(SplitAttention, block.attn))
    return added


def queries_of(attention: SplitAttention, x: Tensor) -> Tensor:
    """What an input asks, ``(B, heads, L, D / heads)``, bias included and not yet scaled."""
    return _heads(attention, attention.q_proj(x))


def shares_of_prompts(attention: SplitAttention, x: Tensor) -> Tensor:
    """Attention weights from an input to the prompts, ``(B, heads, L, count)``."""
    seen = cast(Prompts, attention.seen)
    asked, keys = queries_of(attention, x), _heads(attention, attention.k_proj(seen(x)))
    scores = asked @ keys.transpose(-1, -2) / asked.shape[-1] ** 0.5
    return torch.softmax(scores, dim=-1)[..., -len(seen.tokens) :]


def _heads(attention: SplitAttention, x: Tensor) -> Tensor:
    batch, length, _ = x.shape
    return x.view(batch, length, attention.num_heads, -1).transpose(1, 2)
