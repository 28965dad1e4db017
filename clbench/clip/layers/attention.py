"""Multi-head attention with separate query, key and value projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.layers.together import apply_layers, declare

PROJECTIONS: Final = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
"""Short names of the four projections and the attributes that hold them."""


@declare(pure=True)
class SplitAttention(nn.Module):
    """Stand-in for `nn.MultiheadAttention` whose four projections are plain `nn.Linear` layers.

    `nn.MultiheadAttention` keeps query, key and value in one packed matrix and bypasses the
    forward of its output projection, so neither can be adapted as a layer. Here each projection
    is called as a module and can be replaced, hooked or frozen on its own.

    Attributes:
        beside: receives queries and what the heads attended to, both ``(B, heads, L, D / heads)``,
            and returns what goes into the output projection instead; None for nothing.
        seen: makes of the input ``(B, L, D)`` what it attends to, ``(B, S, D)``; None for itself.

    Only what CLIP uses is supported: self-attention sizes, batch first, no dropout.
    """

    def __init__(self, embed_dim: int, num_heads: int, bias: bool = True) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"width {embed_dim} is not divisible by {num_heads} heads")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.has_bias = bias
        self.beside: nn.Module | None = None
        self.seen: nn.Module | None = None
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias)

    @classmethod
    def from_packed(cls, packed: nn.MultiheadAttention) -> SplitAttention:
        """Copy the weights of a packed attention.

        Raises:
            ValueError: `packed` uses a feature that has no counterpart here.
        """
        supported = (
            packed.kdim == packed.vdim == packed.embed_dim
            and packed.bias_k is None
            and packed.batch_first
            and not packed.add_zero_attn
            and packed.dropout == 0
        )
        if not supported:
            raise ValueError("only self-attention, batch first and without dropout, can be split")
        packed_bias = cast("Tensor | None", packed.in_proj_bias)
        with torch.device("meta"):  # no initialisation: it would draw random numbers for nothing
            split = cls(packed.embed_dim, packed.num_heads, packed_bias is not None)
        weights = packed.in_proj_weight.chunk(3)
        biases = (None,) * 3 if packed_bias is None else packed_bias.chunk(3)
        projections = (split.q_proj, split.k_proj, split.v_proj)
        for linear, weight, bias in zip(projections, weights, biases, strict=True):
            _fill(linear, weight, bias)
        _fill(split.out_proj, packed.out_proj.weight, packed.out_proj.bias)
        return split.train(packed.training)

    def packed_state(self) -> dict[str, Tensor]:
        """The weights under the names of `nn.MultiheadAttention`, as new tensors.

        Raises:
            ValueError: a projection holds more or less than a weight and a bias, that is, an
                adapter has not been merged.
        """
        state = self.state_dict()
        parts = ("weight", "bias") if self.has_bias else ("weight",)
        expected = {f"{name}.{part}" for name in PROJECTIONS.values() for part in parts}
        if surplus := sorted(expected ^ set(state)):
            raise ValueError(f"attention holds unmerged adapters: {surplus[0]}")
        packed = {}
        for part in parts:
            rows = [state[f"{name}.{part}"] for name in ("q_proj", "k_proj", "v_proj")]
            packed[f"in_proj_{part}"] = torch.cat(rows)
            packed[f"out_proj.{part}"] = state[f"out_proj.{part}"].clone()
        return packed

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend with the conventions of `nn.MultiheadAttention`.

        Args:
            query: ``(B, L, D)``.
            key: ``(B, S, D)``.
            value: ``(B, S, D)``.
            need_weights: must be False.
            attn_mask: ``(L, S)`` or ``(B * heads, L, S)``; float is added to the scores, bool
                marks with True the pairs that must not attend.
            is_causal: every position attends to itself and earlier ones; stands for `attn_mask`.

        Returns:
            ``(B, L, D)``, and None in place of the attention weights.
        """
        if need_weights:
            raise ValueError("attention weights are not computed")
        if self.seen is not None:
            key = value = self.seen(query)
        queries, keys, values = map(self._heads, self._projected(query, key, value))
        mask = None if is_causal else self._mask(attn_mask, queries)
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=is_causal
        )
        if self.beside is not None:
            attended = self.beside(queries, attended)
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output, None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Query, key and value, those of one input together."""
        if query is key is value:
            return apply_layers((self.q_proj, self.k_proj, self.v_proj), query)
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` to ``(B, heads, L, D / heads)``."""
        batch, length, _ = x.shape
        return x.reshape(batch, length, self.num_heads, -1).transpose(1, 2)

    def _mask(self, mask: Tensor | None, queries: Tensor) -> Tensor | None:
        """The mask in the convention of `F.scaled_dot_product_attention`."""
        if mask is None:
            return None
        if mask.dim() == 3:
            mask = mask.reshape(-1, self.num_heads, *mask.shape[1:])
        return ~mask if mask.dtype == torch.bool else mask.to(queries.dtype)


def packed_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The state dict that a network had before its attention was split.

    Raises:
        ValueError: an attention holds unmerged adapters.
    """
    state: dict[str, Tensor] = network.state_dict()
    for path, module in network.named_modules():
        if not isinstance(module, SplitAttention):
            continue
        prefix = f"{path}." if path else ""
        for name in [f"{prefix}{name}" for name in module.state_dict()]:
            del state[name]
        try:
            state |= {f"{prefix}{name}": value for name, value in module.packed_state().items()}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return state


def _fill(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer its own copy of the weights."""
    linear.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
