"""EWC: weights that mattered for earlier tasks are held where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor

from clbench.clip.growing import let_grow
from clbench.clip.importance import diagonal_fisher
from clbench.clip.losses import classification, squared_distance
from clbench.clip.merging import flatten, unflatten
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class EWC(Method):
    """Fine-tune all weights, and hold each the stronger the more it mattered for earlier tasks.

    ``L = CE + strength / 2 sum_i F_i (theta_i - theta*_i)^2`` from the second task on, theta* being
    the weights at the start of the task. After a task ``F <- decay F + F_task``, where ``F_task``
    is the mean over the task's images of the squared gradient of an image's own loss (the diagonal
    of the empirical Fisher information). This is the online form, with one F and one anchor however
    many tasks there are; the original adds one penalty per task. With ``decay = 1`` both count
    every task's importance in full.

    Stored: F, one number per trained weight.

    Paper: https://arxiv.org/abs/1612.00796 (online form: https://arxiv.org/abs/1805.06370)
    """

    name: ClassVar[str] = "ewc"
    title: ClassVar[str] = "EWC"
    family: ClassVar[str] = "Weights held or averaged"
    paper: ClassVar[str] = "https://arxiv.org/abs/1612.00796"
    transient: ClassVar[frozenset[str]] = frozenset({"start"})

    importance: Tensor
    """F, ``(d,)``; empty before the first task has ended."""

    def __init__(
        self,
        *,
        strength: Annotated[
            float, Field(ge=0, description="Weight of half the squared distance.")
        ] = 1.0,
        decay: Annotated[
            float, Field(ge=0, le=1, description="Share of F that is kept when a task is added.")
        ] = 1.0,
        fisher_images: Annotated[
            int, Field(ge=1, description="Images per task from which F is estimated.")
        ] = 256,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        self.register_buffer("importance", flatten(trained_parameters(self))[:0].clone())
        let_grow(self, "importance")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Remember where the task starts."""
        self.start = [weight.detach().clone() for weight in trained_parameters(self)]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification and, from the second task on, the weighted distance to the start."""
        terms = {"classification": self._classification(batch)}
        if len(self.importance):
            weights = trained_parameters(self)
            distance = squared_distance(weights, self.start, unflatten(self.importance, weights))
            terms["distance"] = self.strength / 2 * distance
        return terms

    def end_task(self, task: Task, data: TaskData) -> None:
        """Add what matters for the task."""
        weights = trained_parameters(self)
        fisher = flatten(
            diagonal_fisher(self._classification, weights, data, self.fisher_images, task.index)
        )
        old = self.decay * self.importance if len(self.importance) else 0
        self.importance = old + fisher

    def _classification(self, batch: Batch) -> Tensor:
        return classification(self.model, batch, self.label_smoothing)
