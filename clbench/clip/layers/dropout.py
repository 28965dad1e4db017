"""Dropout whose masks are quickly drawn on the CPU and take one bit per element there.

Assumes that p may be rounded to a multiple of 2^-16, and that other random numbers than those of
PyTorch's dropout will do; both are tested. On GPUs masks are PyTorch's own random numbers.
``CLBENCH_PLAIN=dropout`` draws them so on the CPU, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declare
from clbench.core.plain import is_plain

DIGITS = 16
"""Binary digits to which probabilities are rounded."""


class Kept(NamedTuple):
    """Which elements a dropout keeps.

    Attributes:
        bits: uint8 array with eight elements to the byte on the CPU, else a bool tensor.
        shape: of the tensor.
    """

    bits: Any
    shape: torch.Size

    @classmethod
    def of(cls, mask: Tensor) -> Kept:
        """Those that are True in a bool tensor."""
        on_cpu = mask.device.type == "cpu"
        return cls(np.packbits(mask.numpy()) if on_cpu else mask, mask.shape)

    @classmethod
    def drawn(cls, shape: torch.Size, device: torch.device, p: float) -> Kept:
        """Each element of a tensor with probability 1 - p, independently of the others."""
        if device.type != "cpu" or is_plain("dropout"):
            return cls.of(torch.rand(shape, device=device) >= p)
        return cls(_random_bits(shape.numel(), 1 - p), shape)

    def as_numbers(self, dtype: torch.dtype) -> Tensor:
        """One where an element is kept, else zero."""
        if isinstance(self.bits, Tensor):
            return self.bits.to(dtype)
        bits = np.unpackbits(self.bits, count=self.shape.numel())
        # PyTorch's CPU kernels read bools five times slower than bytes.
        return torch.from_numpy(bits).view(self.shape).to(dtype)


@declare(pure=lambda dropout: not dropout.dropping)
class Dropout(nn.Module):
    """`torch.nn.Dropout` with a mask that costs a tenth on the CPU.

    PyTorch draws one random double per element there, a quarter of a training step of a small
    model. Here 64 elements share as many random words as p has binary digits, at most 16.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share p of the elements and scale up the others, in training only."""
        if not self.dropping:
            return x
        kept = Kept.drawn(x.shape, x.device, self.p)
        return x * kept.as_numbers(x.dtype) / (1 - self.p)

    @property
    def dropping(self) -> bool:
        """Whether anything is dropped at present."""
        return self.training and self.p > 0


def _random_bits(count: int, probability: float) -> Any:
    """At least `count` bits, eight to the byte, that are one with the given probability."""
    steps = _digit_by_digit(probability)
    words = torch.empty(len(steps) + 1, -(-count // 64), dtype=torch.int64)
    last, *others = words.random_(-(2**63), None).numpy()
    for step, word in zip(steps, others, strict=True):
        step(last, word, out=last)
    return last.view(np.uint8)


@cache
def _digit_by_digit(probability: float) -> Sequence[Callable[..., Any]]:
    """What to do with a fair bit and one fair bit after another, to get a bit of a probability.

    Let a bit be one with probability q. With a fair bit, ``or`` makes that (1 + q) / 2 and ``and``
    makes it q / 2: either puts a binary digit, 1 or 0, in front of those of q.
    """
    scaled = min(max(round(probability * 2**DIGITS), 1), 2**DIGITS - 1)
    digits = f"{scaled:0{DIGITS}b}".rstrip("0")
    return [np.bitwise_or if digit == "1" else np.bitwise_and for digit in reversed(digits[:-1])]
