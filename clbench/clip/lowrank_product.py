"""The product of a low-rank layer, with a backward pass that keeps next to nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention


class Factors(NamedTuple):
    """What a low-rank layer multiplies with.

    Attributes:
        weight: W, ``(out, in)``, frozen.
        bias: b, ``(out,)``, frozen, or None.
        down: A, ``(rank, in)``.
        core: M, ``(rank, rank)``, or None.
        up: B, ``(out, rank)``.
    """

    weight: Tensor
    bias: Tensor | None
    down: Tensor
    core: Tensor | None
    up: Tensor


def lowrank_product(x: Tensor, factors: Factors, scale: float, dropped: Tensor | None) -> Tensor:
    """``y = W x + b + c B M A d(x)``, where d sets the dropped elements to zero.

    No product is wider than the rank except those with W, A and B themselves: neither an
    ``out x in`` update nor its gradient is ever formed. Kept for the backward pass are
    activations of the width of the rank, the dropped elements (on the CPU one bit each), and the
    input only where A is trained. W and b get no gradient.

    Args:
        x: ``(..., in)``.
        factors: W, b, A, M and B, in the dtype of x.
        scale: c.
        dropped: bool, shaped like x; None if nothing is dropped.
    """
    y: Tensor = _Product.apply(x, *factors, scale, dropped)  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    """See `lowrank_product`; in the backward pass ``g`` is the gradient of y."""

    @staticmethod
    def forward(  # noqa: PLR0913 - one input per gradient
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        core: Tensor | None,
        up: Tensor,
        scale: float,
        dropped: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        z = F.linear(_without(rows, dropped), down)
        t = z if core is None else F.linear(z, core)
        y = F.linear(rows, weight, bias)
        y.addmm_(t, up.T, alpha=scale)
        _, _, _, needs_down, needs_core, needs_up, _, _ = ctx.needs_input_grad
        ctx.scale = scale
        ctx.shape = x.shape
        ctx.dropped = None if dropped is None else _Packed.of(dropped)
        ctx.save_for_backward(
            weight,
            down,
            core,
            up,
            z if needs_core else None,
            t if needs_up else None,
            x if needs_down else None,
        )
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, down, core, up, z, t, x = ctx.saved_tensors
        needs_x, _, _, needs_down, needs_core, needs_up, _, _ = ctx.needs_input_grad
        g = gradient.reshape(-1, gradient.shape[-1])
        dropped = None if ctx.dropped is None else ctx.dropped.mask()
        g_up = ctx.scale * (g.T @ t) if needs_up else None
        g_t = (g @ up).mul_(ctx.scale)
        g_core = g_t.T @ z if needs_core else None
        g_z = g_t if core is None else g_t @ core
        g_down = None
        if needs_down:
            g_down = g_z.T @ _without(x.reshape(-1, x.shape[-1]), dropped)
        g_x = None
        if needs_x:
            g_x = g @ weight
            if dropped is None:
                g_x.addmm_(g_z, down)
            else:
                g_x += (g_z @ down).masked_fill_(dropped, 0)
            g_x = g_x.view(ctx.shape)
        return g_x, None, None, g_down, g_core, g_up, None, None


class _Packed(NamedTuple):
    """A mask, eight elements to the byte where NumPy can pack them."""

    bits: Any
    shape: torch.Size

    @classmethod
    def of(cls, dropped: Tensor) -> _Packed:
        rows = dropped.reshape(-1, dropped.shape[-1])
        if rows.is_cuda:
            return cls(rows, rows.shape)
        return cls(np.packbits(rows.numpy()), rows.shape)

    def mask(self) -> Tensor:
        """The mask as it was, ``(rows, in)`` bool."""
        if isinstance(self.bits, Tensor):
            return self.bits
        count = self.shape.numel()
        return torch.from_numpy(np.unpackbits(self.bits, count=count).view(np.bool_)).view(
            self.shape
        )


def _without(rows: Tensor, dropped: Tensor | None) -> Tensor:
    """The rows with zeros where elements are dropped."""
    return rows if dropped is None else rows.masked_fill(dropped.view(rows.shape), 0)
