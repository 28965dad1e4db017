"""Gates: whether an input uses what a task added to a block."""

from __future__ import annotations

import math
from typing import Final, cast

import torch
from torch import Tensor, nn

from clbench.clip.growing import GrowingList
from clbench.clip.layers.together import declare

TEMPERATURE: Final = 3.0
"""Of the softmax through which gates learn, as released."""


@declare(pure=True)
class Gate(nn.Module):
    """The two sides of every block of a task, closed and open, as linear maps of features.

    Args:
        blocks: how many.
        size: of the features.
    """

    def __init__(self, blocks: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(blocks, 2, size))
        self.bias = nn.Parameter(torch.zeros(blocks, 2))


@declare(pure=True)
class Gates(nn.Module):
    """Opens or closes each block for each input, by the sides ``W_t x + b_t`` of its task t.

    In training, Gumbel noise n is added: the larger side of ``W_t x + b_t + n`` counts, and the
    gradient is that of ``softmax((W_t x + b_t + n) / 3)``.

    Source: IAP (https://arxiv.org/abs/2503.20612), instance-aware gated prompting.

    Args:
        blocks: how many.
        size: of the features x.
    """

    def __init__(self, blocks: int, size: int) -> None:
        super().__init__()
        self.sets = GrowingList(lambda: Gate(blocks, size))

    def grow(self, generator: torch.Generator) -> Gate:
        """Begin a task: weights from Glorot's uniform distribution, biases zero."""
        gate = cast(Gate, self.sets.grow())
        bound = math.sqrt(6 / (gate.weight.shape[2] + 2))
        drawn = torch.rand(gate.weight.shape, generator=generator)
        with torch.no_grad():
            gate.weight.copy_((2 * drawn - 1) * bound)
        return gate

    def forward(
        self, features: Tensor, tasks: Tensor | int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Which blocks are open.

        Args:
            features: ``(B, D)``.
            tasks: the task of all inputs, or of each, ``(B,)``.
            generator: of the noise, on the CPU; without one, there is none.

        Returns:
            ``(blocks, B)``, ones and zeros; with noise, gradients reach the gates.
        """
        weight, bias = self._of("weight", tasks), self._of("bias", tasks)
        sides = torch.einsum("blsd,bd->lbs", weight.expand(len(features), -1, -1, -1), features)
        sides = sides + bias.transpose(0, 1)
        if generator is None:
            return sides.argmax(dim=-1).to(features.dtype)
        noise = -(-torch.rand(sides.shape, generator=generator).log()).log()
        noisy = sides + noise.to(sides)
        soft = (noisy / TEMPERATURE).softmax(dim=-1)[..., 1]
        hard = noisy.argmax(dim=-1).to(soft.dtype)
        return hard - soft.detach() + soft

    def _of(self, part: str, tasks: Tensor | int) -> Tensor:
        """Weights or biases of each input's task, or of all inputs' with length one."""
        if isinstance(tasks, Tensor):
            return torch.stack([getattr(gate, part) for gate in self.sets])[tasks]
        return cast(Tensor, getattr(self.sets[tasks], part))[None]
