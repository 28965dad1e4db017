"""How a task is optimised: what a method is told before it, and the optimizer that recipes name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from clbench.core.settings import TrainSettings

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
"""What PyTorch's optimizers take: tensors, or groups of them with options of their own."""


@dataclass(frozen=True)
class TrainingPlan:
    """The optimisation of one task.

    Attributes:
        steps: optimizer steps.
        lr: peak learning rate.
        settings: the recipe's training settings.
    """

    steps: int
    lr: float
    settings: TrainSettings

    def optimizer(self, parameters: Parameters) -> Optimizer:
        """The optimizer that the recipe names, over the given parameters or groups.

        A group may hold options of its own, such as ``lr`` or ``weight_decay``.
        """
        train = self.settings
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": train.weight_decay, "fused": True}
        if train.optimizer == "sgd":
            return SGD(parameters, momentum=train.momentum, **options)
        kind: type[Adam] | type[AdamW] = Adam if train.optimizer == "adam" else AdamW
        return kind(parameters, betas=train.betas, **options)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The recipe's warm-up and decay, as a factor on every group's learning rate."""
        warmup = self.settings.warmup_steps(self.steps)
        kind = self.settings.schedule
        return LambdaLR(optimizer, lambda step: rate_factor(step, warmup, self.steps, kind))


def rate_factor(step: int, warmup: int, total: int, kind: str = "cosine") -> float:
    """Factor on the peak learning rate: linear warm-up, then decay.

    ``(step + 1) / warmup`` during warm-up; then, with ``u = (step - warmup) / (total - warmup)``,
    ``(1 + cos(pi u)) / 2`` for ``cosine``, as in the published MTIL protocol (ZSCL), ``1 - u`` for
    ``linear``, and 1 for ``constant``.

    >>> [round(rate_factor(s, 2, 6), 3) for s in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    >>> [rate_factor(s, 0, 4, "linear") for s in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if kind == "constant":
        return 1.0
    return 1 - progress if kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def trained_parameters(module: torch.nn.Module) -> list[Tensor]:
    """The parameters that require grad."""
    return [p for p in module.parameters() if p.requires_grad]
