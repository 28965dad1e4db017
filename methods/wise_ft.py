"""WiSE-FT: fine-tune, then go back part of the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

from pydantic import Field
from torch import Tensor

from clbench.clip.importance import diagonal_fisher
from clbench.clip.losses import classification
from clbench.clip.merging import assign, flatten, interpolated
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class WiSEFT(Method):
    """Fine-tune all weights on a task, then average them with those of another model.

    After each task ``theta <- (1 - alpha) theta_anchor + alpha theta``; the next task starts from
    the average. The anchor is the model that the task started from, as in ZSCL's tables, or
    zero-shot CLIP, as WiSE-FT was published for a single task. With `fisher` the shares of every
    weight are ``(1 - alpha) F_anchor`` and ``alpha F``, divided by their sum, where F is the
    diagonal Fisher information of the task's images under either model.

    Stored: nothing with the anchor ``previous``, the initial CLIP with ``zero-shot``.

    Paper: https://arxiv.org/abs/2109.01903
    """

    name: ClassVar[str] = "wise_ft"
    paper: ClassVar[str] = "https://arxiv.org/abs/2109.01903"
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})
    transient: ClassVar[frozenset[str]] = frozenset({"before", "importance"})

    zero_shot: Tensor | None
    """The initial weights ``(d,)``, if they are the anchor."""

    def __init__(
        self,
        *,
        alpha: Annotated[
            float, Field(ge=0, le=1, description="Share of the fine-tuned weights.")
        ] = 0.8,
        anchor: Annotated[
            Literal["previous", "zero-shot"],
            Field(description="The other weights: where the task started, or the initial CLIP's."),
        ] = "previous",
        fisher: Annotated[
            int,
            Field(
                ge=0,
                description="Images per task from which the importance of weights is estimated; 0 "
                "averages all weights alike.",
            ),
        ] = 0,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        keep = self.anchor == "zero-shot"
        self.register_buffer("zero_shot", flatten(trained_parameters(self)) if keep else None)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Remember where the task starts."""
        weights = trained_parameters(self)
        start = flatten(weights)
        self.before = start if self.zero_shot is None else self.zero_shot
        if self.fisher:
            assign(weights, self.before)
            self.importance = self._importance(task, data)
            assign(weights, start)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": self._loss(batch)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Average the fine-tuned weights with the anchor's."""
        both = (self.importance, self._importance(task, data)) if self.fisher else None
        weights = trained_parameters(self)
        assign(weights, interpolated(self.before, flatten(weights), self.alpha, both))

    def _loss(self, batch: Batch) -> Tensor:
        return classification(self.model, batch, self.label_smoothing)

    def _importance(self, task: Task, data: TaskData) -> Tensor:
        """Diagonal Fisher information ``(d,)`` of the task's images under the present weights."""
        weights = trained_parameters(self)
        return flatten(diagonal_fisher(self._loss, weights, data, self.fisher, task.index))
