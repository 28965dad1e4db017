"""Bottleneck adapters beside the MLPs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import linear_start
from clbench.clip.layers.dropout import Dropout
from clbench.clip.layers.together import declare

if TYPE_CHECKING:
    from clbench.clip.model import CLIP, Encoder


@declare(pure=True)
class Bottleneck(nn.Module):
    """An adapter ``y = c (U dropout(relu(D x + a)) + b)``, as AdaptFormer has it.

    Paper: https://arxiv.org/abs/2205.13535

    Attributes:
        down: D, ``(bottleneck, width)``, and a.
        up: U, ``(width, bottleneck)``, and b.
        scale: c.
    """

    def __init__(self, width: int, bottleneck: int, scale: float, dropout: float) -> None:
        """An adapter that is zero and, until `start`, cannot be trained to anything else.

        Args:
            width: size of the input and the output.
            bottleneck: size between them.
            scale: the factor c.
            dropout: share of the hidden units dropped in training.
        """
        super().__init__()
        self.down = cast("nn.Linear", nn.utils.skip_init(nn.Linear, width, bottleneck))
        self.up = cast("nn.Linear", nn.utils.skip_init(nn.Linear, bottleneck, width))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.scale = scale
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Apply to ``(N, ..., width)``.

        Args:
            x: the input.
            gate: ``(N,)`` factors on the outputs. They are applied to the hidden units, so that
                nothing as wide as the output is kept for the backward pass.
        """
        hidden = self.dropout(F.relu(self.down(x)))
        if gate is None:
            y: Tensor = self.scale * self.up(hidden)
            return y
        factor = (self.scale * gate).view(-1, *[1] * (x.dim() - 1)).to(hidden.dtype)
        return F.linear(factor * hidden, self.up.weight) + factor * self.up.bias

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw D as linear layers of PyTorch are, on the CPU; all else is zero, as the adapter."""
        self.down.weight.copy_(linear_start(self.down.weight.shape, generator))
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            parameter.zero_()


@declare(pure=True)
class ParallelMLP(nn.Module):
    """The second half of a block's residual branch, with an adapter beside norm and MLP.

    ``y = scale(mlp(norm(x))) + adapter(x)``: the adapter reads the residual stream itself. One
    that returns None adds nothing.
    """

    def __init__(self, norm: nn.Module, mlp: nn.Module, scale: nn.Module, adapter: nn.Module):
        super().__init__()
        self.norm, self.mlp, self.scale, self.adapter = norm, mlp, scale, adapter

    def forward(self, x: Tensor) -> Tensor:
        """Apply to the residual stream after attention, ``(N, L, width)``."""
        y: Tensor = self.scale(self.mlp(self.norm(x)))
        beside: Tensor | None = self.adapter(x)
        return y if beside is None else y + beside


def attach_beside_mlps(
    model: CLIP, encoders: Iterable[Encoder], make: Callable[[Encoder, int], nn.Module]
) -> dict[Encoder, list[Any]]:
    """Put an adapter beside the MLP of every block.

    Args:
        model: the model that holds the blocks.
        encoders: which encoders.
        make: returns an adapter for an encoder of a width.

    Returns:
        The adapters by encoder, input side first.
    """
    adapters: dict[Encoder, list[Any]] = {}
    for encoder in encoders:
        blocks: list[Any] = model.blocks(encoder)
        adapters[encoder] = []
        for block in blocks:
            weight = block.mlp.c_fc.weight
            adapter = make(encoder, weight.shape[1]).to(weight.device)
            block.mlp = ParallelMLP(block.ln_2, block.mlp, block.ls_2, adapter)
            block.ln_2, block.ls_2 = nn.Identity(), nn.Identity()
            adapters[encoder].append(adapter)
    return adapters
