"""LwF-VR: as LwF, with random sentences in the place of class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
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
class LwFVR(Method):
    """Fine-tune all weights while the previous model's view of random sentences is distilled.

    ``L = CE + distillation (D(t, z) + D(t^T, z^T))`` with ``z = s f(I) g_0(C)^T`` and
    ``t = s f_0(I) g_0(C)^T`` as in LwF, but C are `sentences` random ones, drawn anew for each
    task: start of text, `words` tokens drawn uniformly from the whole vocabulary, end of text.
    They reach parts of the feature space that class names do not. Nothing is stored between
    tasks.

    Paper: https://arxiv.org/abs/2207.09248 (settings of ZSCL, https://arxiv.org/abs/2303.06628)
    """

    name: ClassVar[str] = "lwf_vr"
    title: ClassVar[str] = "LwF-VR"
    family: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2207.09248"
    transient: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __init__(
        self,
        *,
        sentences: Annotated[int, Field(ge=1, description="Random sentences per task.")] = 1000,
        words: Annotated[int, Field(ge=1, description="Random tokens of a sentence.")] = 10,
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
        """Make the model as it is now the teacher, and draw sentences."""
        self.images.open(data.reference_stream("task", "task", self.draws.seed()))
        model = self.model if self.as_released else frozen_copy(self.model)
        self.teacher = Teacher(model, self.random_sentences())

    def random_sentences(self) -> Tensor:
        """Token ids ``(sentences, words + 2)``."""
        tokenizer = self.model.tokenizer
        shape = (self.sentences, min(self.words, self.model.context_length - 2))
        drawn = torch.randint(tokenizer.vocab_size, shape, generator=self.draws.generator)
        start = torch.full((self.sentences, 1), tokenizer.sot_token_id)
        end = torch.full((self.sentences, 1), tokenizer.eot_token_id)
        return torch.cat([start, drawn, end], dim=1).to(self.model.device)

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
