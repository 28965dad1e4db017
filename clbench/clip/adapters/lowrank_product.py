"""The product of low-rank layers, with a backward pass that keeps next to nothing.

Assumes that the base weight and bias are frozen (`LowRankLinear` raises if they require grad), that
gradients are taken once (a second derivative raises), and that masks are not changed between the
forward and the backward pass, since nobody else holds them. Layers that share an input are computed
together only if they have one scale and one dropout and are unobserved.
``CLBENCH_PLAIN=lowrank_product`` uses four lines of PyTorch instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.layers.dropout import Kept
from clbench.core.plain import is_plain

SMALL = 2**18
"""Masks of at most this many elements are kept as they are rather than one bit per element."""
SAVED = 6
"""Tensors of a layer that are saved for the backward pass: W, A, M, B, M's input and B's input."""


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


def lowrank_products(
    x: Tensor, layers: Sequence[Factors], scale: float, kept: Kept | None
) -> tuple[Tensor, ...]:
    """``y_i = W_i x + b_i + c B_i M_i A_i d_i(x)``: d_i sets all but the kept elements to zero.

    No product is wider than the rank except those with W, A and B themselves: neither an
    ``out x in`` update nor its gradient is ever formed. Kept for the backward pass are
    activations of the width of the rank, which elements d keeps (on the CPU one bit each, but for
    small inputs), and the input only where A is trained. W and b get no gradient.

    Args:
        x: ``(..., in)``.
        layers: W, b, A, M and B of each layer, in the dtype of x.
        scale: c.
        kept: which elements of x, ``(layers, ..., in)``; None means all.

    Returns:
        ``(..., out)`` of each layer.
    """
    if is_plain("lowrank_product"):
        masks = kept.as_numbers(x.dtype) if kept is not None else [torch.ones_like(x)] * len(layers)
        return tuple(_plain(x, m, layer, scale) for m, layer in zip(masks, layers, strict=True))
    outputs: tuple[Tensor, ...] = _Products.apply(x, scale, kept, *chain.from_iterable(layers))
    return outputs


def _plain(x: Tensor, mask: Tensor, layer: Factors, scale: float) -> Tensor:
    """The product as autograd has it."""
    z = F.linear(x * mask, layer.down)
    z = z if layer.core is None else F.linear(z, layer.core)
    return F.linear(x, layer.weight, layer.bias) + scale * F.linear(z, layer.up)


class _Products(torch.autograd.Function):
    """See `lowrank_products`; in the backward pass ``g`` is the gradient of an output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: float, kept: Kept | None, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        layers = _grouped(tensors)
        needed = _grouped(ctx.needs_input_grad[3:])
        inputs, remembered = _dropped_out(rows, kept)
        outputs, saved = [], []
        for i, (layer, needs) in enumerate(zip(layers, needed, strict=True)):
            weight, bias, down, core, up = layer
            z = F.linear(rows if inputs is None else inputs[i], down)
            t = z if core is None else F.linear(z, core)
            y = F.linear(rows, weight, bias).addmm_(t, up.T, alpha=scale)
            outputs.append(y.view(*x.shape[:-1], len(weight)))
            saved += [weight, down, core, up, z if needs.core else None, t if needs.up else None]
        ctx.scale, ctx.kept, ctx.shape = scale, remembered, x.shape
        ctx.save_for_backward(x if any(needs.down for needs in needed) else None, *saved)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        needs_x, _, _, *needs = ctx.needs_input_grad
        rows = None if x is None else x.reshape(-1, x.shape[-1])
        results: list[Tensor | None] = []
        g_x, masks = None, ctx.kept
        for i, (gradient, needed) in enumerate(zip(gradients, _grouped(needs), strict=True)):
            weight, down, core, up, z, t = saved[SAVED * i : SAVED * (i + 1)]
            g = gradient.reshape(-1, gradient.shape[-1])
            if isinstance(masks, Kept):
                masks = _masks(masks, g)
            mask = None if masks is None else masks[i]
            g_t = (g @ up).mul_(ctx.scale)
            g_z = g_t if core is None else g_t @ core
            g_down = None
            if rows is not None and needed.down:
                g_down = g_z.T @ (rows if mask is None else rows * mask)
            if needs_x:
                g_x = g @ weight if g_x is None else g_x.addmm_(g, weight)
                if mask is None:
                    g_x.addmm_(g_z, down)
                else:
                    g_x.addcmul_(g_z @ down, mask)
            g_core = g_t.T @ z if needed.core else None
            g_up = ctx.scale * (g.T @ t) if needed.up else None
            results += [None, None, g_down, g_core, g_up]
        return (None if g_x is None else g_x.view(ctx.shape), None, None, *results)


def _grouped(flat: Sequence[Any]) -> list[Factors]:
    """One entry per factor of each layer."""
    size = len(Factors._fields)
    return [Factors(*flat[i : i + size]) for i in range(0, len(flat), size)]


def _dropped_out(rows: Tensor, kept: Kept | None) -> tuple[Tensor | None, Tensor | Kept | None]:
    """Inputs of the updates, ``(layers, rows, in)``, and what tells their masks later."""
    if kept is None:
        return None, None
    masks = _masks(kept, rows)
    if masks.numel() <= SMALL:
        return masks * rows, masks
    return masks.mul_(rows), kept


def _masks(kept: Kept, rows: Tensor) -> Tensor:
    """Zeros and ones, ``(layers, rows, in)``."""
    return kept.as_numbers(rows.dtype).view(-1, len(rows), kept.shape[-1])
