"""ZSCL: the first model's judgement of other images and texts is kept, weights are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.draws import Draws
from clbench.clip.losses import classification_and_distillation, squared_distance
from clbench.clip.reference import StreamedImages
from clbench.clip.teacher import Teacher, frozen_copy
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import (
    DistillationWeight,
    LabelSmoothing,
    ReferenceBatchSize,
    Temperature,
)
from clbench.core.method import Footprint, Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class ZSCL(Method):
    """Fine-tune all weights close to the task's start, with the first model as teacher.

    ``L = CE + distillation (D(t, z) + D(t^T, z^T)) + consolidation ||theta - theta_start||^2``
    with ``z = s f(I) g_0(C)^T`` and ``t = s f_0(I) g_0(C)^T``: I are reference images, C all
    reference captions, f_0 and g_0 the encoders of the pre-trained CLIP. Images and captions do
    not belong to each other. The teacher's text features stand on both sides, so distillation
    reaches the image encoder only; the text encoder is held by the other two parts.

    The model that is tested, and that the next task starts from, is the mean of the weights at
    the start of the task and of those after steps 1, F + 1, 2 F + 1, ... with F = `average_every`.
    Without consolidation this is ZSCL*.

    Stored: the pre-trained CLIP. The reference images and captions are external data.

    Paper: https://arxiv.org/abs/2303.06628
    """

    name: ClassVar[str] = "zscl"
    title: ClassVar[str] = "ZSCL"
    family: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.06628"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images", "reference-texts"})
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})
    transient: ClassVar[frozenset[str]] = frozenset({"teacher", "start"})

    def __init__(
        self,
        *,
        distillation: DistillationWeight = 1.0,
        temperature: Temperature = 2.0,
        consolidation: Annotated[
            float,
            Field(ge=0, description="Weight of the squared distance to the task's first weights."),
        ] = 1.0,
        average_every: Annotated[
            int, Field(ge=1, description="Steps from one member of the average to the next.")
        ] = 100,
        label_smoothing: LabelSmoothing = 0.2,
        reference: Annotated[
            str,
            Field(
                description="Source of the images: `benchmark`, `task`, `imagenet` (the paper's), "
                "`conceptual-captions` or any folder of images."
            ),
        ] = "benchmark",
        captions: Annotated[
            str,
            Field(
                description="Source of the texts: `benchmark`, `task`, `conceptual-captions` (the "
                "paper's), any text file with a caption per line, or a folder `class/*.jpg`."
            ),
        ] = "benchmark",
        reference_batch: ReferenceBatchSize = 64,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Keep the initial model as teacher, and train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        self.initial = frozen_copy(model)
        self.draws = Draws()
        self.images = StreamedImages()
        self.average = WeightAverage()

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Open the reference data, and begin the average with the weights as they are."""
        stream = data.reference_stream(self.reference, self.captions, self.draws.seed())
        self.images.open(stream)
        self.teacher = Teacher(self.initial, self.initial.tokenize(stream.all_texts))
        self.start = [weight.detach().clone() for weight in trained_parameters(self)]
        self.average.begin(self.start)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification, distillation and consolidation of the weights."""
        classified, distilled = classification_and_distillation(
            self.model,
            batch,
            self.images.take(self.reference_batch),
            self.teacher,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
        )
        terms = {"classification": classified, "distillation": self.distillation * distilled}
        if self.consolidation:
            distance = squared_distance(trained_parameters(self), self.start)
            terms["consolidation"] = self.consolidation * distance
        return terms

    def after_step(self) -> None:
        """Let the weights join the average, every so often."""
        self.average.step(trained_parameters(self), self.average_every)

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Go on from the average."""
        # The published loop ends with a step at rate zero, whose weights join, too, in their turn.
        self.average.step(trained_parameters(self), self.average_every)
        for weight, mean in zip(trained_parameters(self), self.average.mean, strict=True):
            weight.copy_(mean)
        self.average.clear()
        self.images.close()

    def footprint(self) -> Footprint:
        """The teacher is stored; reference images and captions are external data."""
        stored = sum(p.nbytes for p in self.initial.parameters())
        return Footprint(self.trainable_parameters(), 0, stored, self.images.external)


@final
class WeightAverage(nn.Module):
    """The plain mean of weights at several steps. Empty between tasks; part of the state dict.

    Attributes:
        mean: one tensor per weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.clear()

    def clear(self) -> None:
        """Drop all members."""
        self.mean: list[Tensor] = []
        self._members = self._steps = 0

    def begin(self, weights: list[Tensor]) -> None:
        """Start with one member."""
        self.mean, self._members, self._steps = [w.clone() for w in weights], 1, 0

    @torch.no_grad()
    def step(self, weights: list[Tensor], every: int) -> None:
        """Add the weights after a step if it is the first or `every` steps after the last added."""
        if self._steps % every == 0:
            self._members += 1
            for mean, weight in zip(self.mean, weights, strict=True):
                mean.lerp_(weight, 1 / self._members)
        self._steps += 1

    def get_extra_state(self) -> dict[str, Any]:
        """The mean, the number of its members, and the steps so far."""
        return {"mean": self.mean, "members": self._members, "steps": self._steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up where the state was saved."""
        device = self.get_buffer("_place").device
        self.mean = [mean.clone().to(device) for mean in state["mean"]]
        self._members, self._steps = state["members"], state["steps"]
