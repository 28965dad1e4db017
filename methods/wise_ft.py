"""WiSE-FT: fine-tune, then go back part of the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.heads import LinearHead
from clbench.clip.importance import diagonal_fisher
from clbench.clip.losses import classification
from clbench.clip.merging import assign, flatten, interpolated
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task
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

    With the classifier ``linear``, as WiSE-FT was published, the image encoder is trained with a
    linear classifier of the task's classes that starts from their text features; both are
    averaged, the classifier with what it started from. Classes not learned keep their text.

    Stored: nothing with the anchor ``previous``, the initial CLIP with ``zero-shot``; the averaged
    classifiers.

    Paper: https://arxiv.org/abs/2109.01903
    """

    name: ClassVar[str] = "wise_ft"
    title: ClassVar[str] = "WiSE-FT"
    family: ClassVar[str] = "Weights held or averaged"
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
        classifier: Annotated[
            Literal["text", "linear"],
            Field(
                description="What classifies image features: text features, both encoders being "
                "trained, or a linear layer that starts from them."
            ),
        ] = "text",
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale, or the image encoder and a classifier."""
        super().prepare(model)
        linear = self.classifier == "linear"
        encoders = model.network.visual if linear else model
        encoders.requires_grad_(True)
        keep = self.anchor == "zero-shot"
        self.register_buffer("zero_shot", flatten(trained_parameters(self)) if keep else None)
        self.head = LinearHead(model.network.visual.output_dim) if linear else None

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Remember where the task starts."""
        if self.head is not None:
            self.head.start(self._rows(task.classes))
        weights = trained_parameters(self)
        start = flatten(weights)
        self.before = start.clone()
        if self.zero_shot is not None:
            self.before[: len(self.zero_shot)] = self.zero_shot
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
        if self.head is not None:
            self.head.keep(task.classes.ids)

    @property
    def answers_with_model(self) -> bool:
        """Whether text features classify."""
        text: bool = self.classifier == "text"
        return text

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Learned classes by their averaged linear classifier, if there is one."""
        if self.head is None:
            return super().classify(images, candidates)
        features = self.model.encode_image(images)
        return self.head.among(features, candidates.ids, self._rows(candidates))

    def _rows(self, classes: ClassTexts) -> Tensor:
        """Class features times the logit scale, ``(C, D)``: a classifier without training."""
        return self.model.logit_scale.exp() * self.model.class_features(classes)

    def _loss(self, batch: Batch) -> Tensor:
        if self.head is None:
            return classification(self.model, batch, self.label_smoothing)
        logits = self.head(self.model.encode_image(batch.images))
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def _importance(self, task: Task, data: TaskData) -> Tensor:
        """Diagonal Fisher information ``(d,)`` of the task's images under the present weights."""
        weights = trained_parameters(self)
        return flatten(diagonal_fisher(self._loss, weights, data, self.fisher, task.index))
