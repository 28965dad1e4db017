"""The product of a low-rank layer, with a backward pass that keeps next to nothing."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

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

    def to(self, dtype: torch.dtype) -> Factors:
        """The factors in another type."""
        weight, bias, down, core, up = (f if f is None else f.to(dtype) for f in self)
        return Factors(cast(Tensor, weight), bias, cast(Tensor, down), core, cast(Tensor, up))


def lowrank_product(x: Tensor, factors: Factors, scale: float, kept: Tensor | None) -> Tensor:
    """``y = W x + b + c B M A d(x)``, where d sets all but the kept elements to zero.

    No product is wider than the rank except those with W, A and B themselves: neither an
    ``out x in`` update nor its gradient is ever formed. Kept for the backward pass are
    activations of the width of the rank, which elements d keeps (on the CPU one bit each), and
    the input only where A is trained. W and b get no gradient.

    Args:
        x: ``(..., in)``.
        factors: W, b, A, M and B, in the dtype of x.
        scale: c.
        kept: bool, shaped like x; None if all elements are.
    """
    y: Tensor = _Product.apply(x, *factors, scale, kept)
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
        kept: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        kept = None if kept is None else kept.view(rows.shape)
        mask = None if kept is None else _as_numbers(kept, rows.dtype)
        z = F.linear(rows if mask is None else rows * mask, down)
        t = z if core is None else F.linear(z, core)
        y = F.linear(rows, weight, bias)
        y.addmm_(t, up.T, alpha=scale)
        _, _, _, needs_down, needs_core, needs_up, _, _ = ctx.needs_input_grad
        ctx.scale = scale
        ctx.shape = x.shape
        ctx.kept = None if kept is None else _Packed.of(kept)
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
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, down, core, up, z, t, x = ctx.saved_tensors
        needs_x, _, _, needs_down, needs_core, needs_up, _, _ = ctx.needs_input_grad
        g = gradient.reshape(-1, gradient.shape[-1])
        mask = None if ctx.kept is None else ctx.kept.mask(g.dtype)
        g_up = ctx.scale * (g.T @ t) if needs_up else None
        g_t = (g @ up).mul_(ctx.scale)
        g_core = g_t.T @ z if needs_core else None
        g_z = g_t if core is None else g_t @ core
        g_down = None
        if needs_down:
            rows = x.reshape(-1, x.shape[-1])
            g_down = g_z.T @ (rows if mask is None else rows * mask)
        g_x = None
        if needs_x:
            g_x = g @ weight
            if mask is None:
                g_x.addmm_(g_z, down)
            else:
                g_x.addcmul_(g_z @ down, mask)
            g_x = g_x.view(ctx.shape)
        return g_x, None, None, g_down, g_core, g_up, None, None


class _Packed(NamedTuple):
    """A mask, eight elements to the byte where NumPy can pack them."""

    bits: Any
    shape: torch.Size

    @classmethod
    def of(cls, mask: Tensor) -> _Packed:
        if mask.device.type != "cpu":
            return cls(mask, mask.shape)
        return cls(np.packbits(mask.numpy()), mask.shape)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """The mask as it was, ``(rows, in)``, as zeros and ones."""
        if isinstance(self.bits, Tensor):
            return _as_numbers(self.bits, dtype)
        count = self.shape.numel()
        return torch.from_numpy(np.unpackbits(self.bits, count=count)).view(self.shape).to(dtype)


def _as_numbers(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros and ones: PyTorch's CPU kernels read and write bools five times slower than bytes."""
    return kept.view(torch.uint8).to(dtype)
