"""Random draws that survive a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declare


@declare(idle=lambda _: True)  # where a generator stands is nothing learned
class Draws(nn.Module):
    """A random generator on the CPU whose position is part of the state dict.

    It starts from the seed of PyTorch's global generator but moves independently of it, so a
    method draws the same numbers whatever else draws, on every device, and after a resume.

    Attributes:
        generator: pass it to any function that draws.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(torch.initial_seed())

    def seed(self) -> int:
        """A seed for what draws by itself, another one at every call."""
        return int(torch.randint(2**31, (), generator=self.generator))

    def get_extra_state(self) -> Tensor:
        """Where the generator stands."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Put the generator where it stood."""
        self.generator.set_state(state.cpu())


def linear_start(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """What weights of PyTorch's linear layers start from (Kaiming uniform), drawn on the CPU.

    Args:
        shape: ``(out, in)``; entries are uniform within ``1 / sqrt(in)``.
        generator: on the CPU.
    """
    weight: Tensor = nn.init.kaiming_uniform_(torch.empty(shape), math.sqrt(5), generator=generator)
    return weight
