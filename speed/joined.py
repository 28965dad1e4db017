"""Query, key and value apart, as one node of the graph, and as one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.layers.dropout import Kept
from clbench.clip.layers.together import apply_layers
from clbench.engine.training.allocator import freed_memory_kept
from speed.machine import alternate, ratio
from speed.setting import core_of

DROPOUT = 0.25


def joined_projections(
    tokens: int, width: int, rank: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Three layers of one input, forwards and backwards.

    Each is called by itself, or all together as shipped, or with stacked weights, which is a
    shortcut that is not taken.

    Args:
        tokens: rows of the input.
        width: its columns, and those of the outputs.
        rank: of the updates.
        repeats: calls of each.
        device: where.
    """
    layers = [_layer(width, rank).to(device) for _ in range(3)]
    stacked = _Stacked(layers)
    x = torch.randn(tokens, width, device=device, requires_grad=True)
    gradient = torch.randn(3, tokens, width, device=device)
    cores = [core_of(layer) for layer in layers]

    def run(apply: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        outputs = apply(x)
        return [*outputs, *torch.autograd.grad(outputs, [x, *cores], [*gradient])]

    def apart() -> list[Tensor]:
        return run(lambda x: [layer(x) for layer in layers])

    def together() -> list[Tensor]:
        return run(lambda x: apply_layers(layers, x))

    def joined() -> list[Tensor]:
        return run(stacked)

    with freed_memory_kept(device):
        times = alternate([apart, together, joined], repeats, device)
    return {
        "tokens": tokens,
        "width": width,
        "rank": rank,
        "apart_seconds": times[0],
        "together_seconds": times[1],
        "joined_seconds": times[2],
        "ratio_together": ratio(times[0], times[1]),
        "ratio_joined": ratio(times[0], times[2]),
        "largest_difference": _difference(together, joined),
    }


class _Stacked:
    """``y_p = W_p x + b_p + c B_p M_p A_p d_p(x)`` for p = q, k, v, in batched products.

    What is frozen is stacked once; only M is stacked in every call.
    """

    def __init__(self, layers: list[LowRankLinear]) -> None:
        self.layers = layers
        self.weight = torch.stack([layer.base.weight for layer in layers]).detach()
        self.bias = torch.stack([layer.base.bias for layer in layers]).detach().unsqueeze(1)
        self.down = torch.stack([layer.down for layer in layers]).detach()
        self.up = torch.stack([layer.up for layer in layers]).detach()

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        kept = Kept.drawn(torch.Size((len(self.layers), *x.shape)), x.device, DROPOUT)
        core = torch.stack([core_of(layer) for layer in self.layers])
        scale = self.layers[0].scale / (1 - DROPOUT)
        product: Tensor = _Product.apply(
            x, self.weight, self.bias, self.down, core, self.up, scale, kept
        )
        return product.unbind()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - one input per gradient
        ctx, x, weight, bias, down, core, up, scale, kept
    ):
        mask = kept.as_numbers(x.dtype)
        z = torch.bmm(x * mask, down.mT)
        y = torch.baddbmm(bias, x.expand(3, -1, -1), weight.mT)
        y.baddbmm_(torch.bmm(z, core.mT), up.mT, alpha=scale)
        ctx.save_for_backward(weight, down, core, up, z, mask)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        weight, down, core, up, z, mask = ctx.saved_tensors
        g_t = torch.bmm(gradient, up).mul_(ctx.scale)
        g_x = torch.bmm(gradient, weight).addcmul_(torch.bmm(torch.bmm(g_t, core), down), mask)
        return g_x.sum(0), None, None, None, torch.bmm(g_t.mT, z), None, None, None


def _layer(width: int, rank: int) -> LowRankLinear:
    layer = LowRankLinear(
        nn.Linear(width, width), rank, 0.2, dropout=DROPOUT, core=True, trained=("core",)
    )
    layer.set_factors(
        down=torch.randn(rank, width) / width**0.5,
        up=torch.randn(width, rank) / rank**0.5,
        core=torch.randn(rank, rank) / rank**0.5,
    )
    return layer.train()


def _difference(one: Callable[[], list[Tensor]], other: Callable[[], list[Tensor]]) -> float:
    torch.manual_seed(0)
    expected = one()
    torch.manual_seed(0)
    return max((a - b).abs().max().item() for a, b in zip(expected, other(), strict=True))
