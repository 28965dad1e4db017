"""SnD: for each reference image, the first or the previous model is the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import Draws
from clbench.clip.reference import StreamedImages
from clbench.clip.teacher import ImageTeacher, frozen_copy
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing, ReferenceBatchSize
from clbench.core.method import Footprint, Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class SnD(Method):
    """Fine-tune the image encoder with two teachers and a choice between them for each image.

    Of a reference image, f are the features under the model, f_0 under the pre-trained one and
    f_p under the one that the task started from. Where the teachers differ, earlier tasks have
    changed what the image means: the previous one is chosen to the degree
    ``e = sigmoid(scale (||f_0 - f_p|| - threshold))``.

    ``L = CE + previous mean(e ||f - f_p||^2) + pretrained mean((1 - e) ||f - f_0||^2)``

    Stored: the pre-trained image encoder. The reference images are external data.

    Paper: https://arxiv.org/abs/2403.09296
    """

    name: ClassVar[str] = "snd"
    title: ClassVar[str] = "SnD"
    family: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2403.09296"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images"})
    transient: ClassVar[frozenset[str]] = frozenset({"first", "last"})

    def __init__(
        self,
        *,
        previous: Annotated[
            float, Field(ge=0, description="Weight of the distillation from the previous model.")
        ] = 9.0,
        pretrained: Annotated[
            float, Field(ge=0, description="Weight of the distillation from the first model.")
        ] = 0.5,
        threshold: Annotated[
            float,
            Field(
                ge=0, description="Distance of the teachers from which the previous one prevails."
            ),
        ] = 0.2,
        scale: Annotated[
            float, Field(gt=0, description="How sharply the choice depends on that distance.")
        ] = 6.0,
        label_smoothing: LabelSmoothing = 0.0,
        reference: Annotated[
            str,
            Field(
                description="Source of the images: `benchmark`, `task`, `imagenet` (the paper's), "
                "`conceptual-captions` or any folder of images."
            ),
        ] = "benchmark",
        reference_batch: ReferenceBatchSize = 64,
        as_released: Annotated[
            bool,
            Field(description="One degree for all images of a step, the mean of theirs."),
        ] = False,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Keep the initial image encoder as a teacher, and train it."""
        super().prepare(model)
        model.network.visual.requires_grad_(True)
        self.initial = frozen_copy(model, share_frozen=True)
        self.draws = Draws()
        self.images = StreamedImages()

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Make the model as it is now the other teacher, and open the reference images."""
        self.first = self.last = ImageTeacher(self.initial)
        weights = (part.network.visual.parameters() for part in (self.initial, self.model))
        if not all(map(torch.equal, *weights)):
            self.last = ImageTeacher(frozen_copy(self.model, share_frozen=True))
        self.images.open(data.reference_stream(self.reference, "task", self.draws.seed()))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification, and distillation from both teachers."""
        images = self.images.take(self.reference_batch)
        own, student = self.model.encode_together(batch.images, images)
        logits = self.model.similarities(own, self.model.text_features(batch.prompts))
        first = self.first.features(images)
        last = first if self.last is self.first else self.last.features(images)
        degrees = previous_degrees(first, last, self.threshold, self.scale)
        if self.as_released:
            degrees = degrees.mean()
        from_last, from_first = distillation_by_degree(student, first, last, degrees)
        return {
            "classification": F.cross_entropy(
                logits, batch.labels, label_smoothing=self.label_smoothing
            ),
            "previous": self.previous * from_last,
            "pretrained": self.pretrained * from_first,
        }

    def end_task(self, task: Task, data: TaskData) -> None:
        """Let the reference images go."""
        self.images.close()

    def footprint(self) -> Footprint:
        """The first image encoder is stored; the reference images are external data."""
        stored = sum(p.nbytes for p in self.initial.network.visual.parameters())
        return Footprint(self.trainable_parameters(), 0, stored, self.images.external)


def previous_degrees(first: Tensor, last: Tensor, threshold: float, scale: float) -> Tensor:
    """To what degree the previous teacher is chosen, ``(B,)``.

    ``e = sigmoid(scale (||f_0 - f_p|| - threshold))``

    Args:
        first: ``(B, D)`` unit-length features f_0 under the pre-trained model.
        last: ``(B, D)`` those f_p under the previous model.
        threshold: distance at which both count half.
        scale: how sharp the choice is.

    >>> previous_degrees(torch.ones(1, 4), torch.ones(1, 4), 0.0, 6.0)
    tensor([0.5000])
    """
    return torch.sigmoid(scale * ((first - last).norm(dim=1) - threshold))


def distillation_by_degree(
    student: Tensor, first: Tensor, last: Tensor, degrees: Tensor
) -> tuple[Tensor, Tensor]:
    """``mean(e ||f - f_p||^2)`` and ``mean((1 - e) ||f - f_0||^2)``.

    Args:
        student: ``(B, D)`` unit-length features f under the model that is trained.
        first: ``(B, D)`` those f_0 under the pre-trained model.
        last: ``(B, D)`` those f_p under the previous model.
        degrees: e, ``(B,)``, or ``()`` for all images.
    """
    from_last = (degrees * (student - last).square().sum(dim=1)).mean()
    from_first = ((1 - degrees) * (student - first).square().sum(dim=1)).mean()
    return from_last, from_first
