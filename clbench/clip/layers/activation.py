"""OpenAI's approximation of GELU, with a third of the memory."""

from __future__ import annotations

from typing import Any, Final

import torch
from open_clip import transformer
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.layers.together import declare

SLOPE: Final = 1.702


@declare(pure=True)
class QuickGELU(transformer.QuickGELU):  # type: ignore[misc]
    """``x sigmoid(1.702 x)``, written as ``silu(1.702 x) / 1.702``.

    The product as open_clip has it keeps its input, the sigmoid and the scaled input for the
    backward pass, in the widest layer of the model. Here the input alone is kept, and forward
    and backward are one pass of a fused kernel beside the scaling.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every element."""
        y: Tensor = _QuickGELU.apply(x)
        return y


class _QuickGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x * SLOPE, inplace=True).mul_(1 / SLOPE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # d/dx silu(a x) / a = silu'(a x)
        result: Tensor = x * SLOPE
        torch.ops.aten.silu_backward.grad_input(gradient, result, grad_input=result)
        return result
