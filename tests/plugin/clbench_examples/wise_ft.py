"""WiSE-FT along a sequence of tasks: after each task, go back part of the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from clbench.clip.losses import classification
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class WiseFT(Method):
    """Fine-tune all weights, then keep a share of what they were before the task.

    After each task ``theta <- (1 - alpha) theta_before + alpha theta_now``, as ZSCL applies
    WiSE-FT to a sequence of tasks. Nothing is stored between tasks.

    Paper: https://arxiv.org/abs/2109.01903
    """

    name: ClassVar[str] = "wise-ft"
    paper: ClassVar[str] = "https://arxiv.org/abs/2109.01903"
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})
    transient: ClassVar[frozenset[str]] = frozenset({"before"})

    def __init__(
        self,
        *,
        alpha: Annotated[
            float, Field(ge=0, le=1, description="Share of the weights after the task.")
        ] = 0.8,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Remember where the task starts."""
        self.before = [weight.detach().clone() for weight in trained_parameters(self)]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Average the weights before and after the task."""
        for now, before in zip(trained_parameters(self), self.before, strict=True):
            now.lerp_(before, 1 - self.alpha)
