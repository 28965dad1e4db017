"""LwF: the previous model's judgement of the current task's images is distilled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

from torch import Tensor

from clbench.clip.draws import Draws
from clbench.clip.losses import classification_and_distillation
from clbench.clip.reference import StreamedImages
from clbench.clip.teacher import Teacher, frozen_copy
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import (
    DistillationWeight,
    LabelSmoothing,
    ReferenceBatchSize,
    SharedTeacher,
    Temperature,
)
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class LwF(Method):
    """Fine-tune all weights while the previous model's view of the task's images is distilled.

    ``L = CE + distillation (D(t, z) + D(t^T, z^T))`` with ``z = s f(I) g_0(C)^T`` and
    ``t = s f_0(I) g_0(C)^T``: I are images of the current task in an order of their own and
    without augmentation, C the training prompts of its classes, and f_0, g_0 the encoders as the
    task found them. The teacher's text features stand on both sides, so distillation reaches the
    image encoder only. Everything but the logit scale is trained. Nothing is stored between
    tasks: the teacher is a copy of the model that a task starts from.

    Paper: https://arxiv.org/abs/1606.09282 (on CLIP as in ZSCL, https://arxiv.org/abs/2303.06628)
    """

    name: ClassVar[str] = "lwf"
    title: ClassVar[str] = "LwF"
    family: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/1606.09282"
    transient: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __init__(
        self,
        *,
        distillation: DistillationWeight = 1.0,
        temperature: Temperature = 2.0,
        label_smoothing: LabelSmoothing = 0.2,
        reference_batch: ReferenceBatchSize = 64,
        as_released: SharedTeacher = False,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        self.draws = Draws()
        self.images = StreamedImages()

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Make the model as it is now the teacher."""
        self.images.open(data.reference_stream("task", "task", self.draws.seed()))
        model = self.model if self.as_released else frozen_copy(self.model)
        self.teacher = Teacher(model, model.tokenize(task.classes.training_prompts))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes, and distillation on its images."""
        images = self.images.take(self.reference_batch)
        classified, distilled = classification_and_distillation(
            self.model,
            batch,
            images,
            self.teacher,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
        )
        return {"classification": classified, "distillation": self.distillation * distilled}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Let the reference images go."""
        self.images.close()
