"""ConDU: one delta for all tasks, from which a model per task is made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.merging import assign, flatten, packed, unified_with, unpacked
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH = 64
"""Images that are encoded together for the prototypes."""


@final
class ConDU(Method):
    """Fine-tune zero-shot CLIP on each task alone; answer with several of the models.

    After a task, its delta to zero-shot CLIP and those of the earlier tasks become one unified
    delta u: per entry the sign of their mean and the largest size with that sign. A mask of one
    bit per weight and one factor per task bring them back as ``theta_i = theta_0 + r_i m_i * u``.

    An image is scored with the mean logits of zero-shot CLIP and of the `nearest` tasks' models,
    nearest being the task that has the class prototype most similar to the image's feature, both
    under zero-shot CLIP. With ``choose="dataset"``, as published, images whose candidates are
    exactly the classes of a learned task are scored with that task's model alone.

    Stored: u, masks and factors, and a prototype per class.

    Paper: https://arxiv.org/abs/2503.10705
    """

    name: ClassVar[str] = "condu"
    title: ClassVar[str] = "ConDU"
    family: ClassVar[str] = "Merging"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.10705"
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})
    transient: ClassVar[frozenset[str]] = frozenset({"start"})

    unified: Tensor
    """u, ``(d,)``; empty before the first task has ended."""
    masks: Tensor
    """Which entries of u are a task's, eight in a byte, ``(T, d / 8)`` uint8."""
    factors: Tensor
    """r, ``(T,)``."""
    prototypes: Tensor
    """Of all classes learned, ``(K, D)`` of unit length."""
    ids: Tensor
    """The numbers of these classes in the whole benchmark, ``(K,)``."""
    owners: Tensor
    """The task of each of them, counted from 0 in the order learned, ``(K,)``."""

    def __init__(
        self,
        *,
        nearest: Annotated[
            int, Field(ge=1, description="Models of tasks that answer beside zero-shot CLIP.")
        ] = 4,
        choose: Annotated[
            Literal["image", "dataset"],
            Field(
                description="Who answers: the models nearest to each image, or, as published, the "
                "model of the data set where its classes are the candidates."
            ),
        ] = "image",
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale, and make room for what is kept."""
        super().prepare(model)
        model.requires_grad_(True)
        self.register_buffer("unified", torch.zeros(0))
        self.register_buffer("masks", torch.zeros(0, 0, dtype=torch.uint8))
        self.register_buffer("factors", torch.zeros(0))
        self.register_buffer("prototypes", torch.zeros(0, model.network.visual.output_dim))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("owners", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "unified", "masks", "factors", "prototypes", "ids", "owners")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Start from zero-shot CLIP, which the model is between tasks."""
        self.start = flatten(trained_parameters(self))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Unify the task's delta with the others, and add the prototypes of its classes."""
        weights = trained_parameters(self)
        delta = flatten(weights) - self.start
        assign(weights, self.start)
        masks = (
            unpacked(self.masks, len(delta)) if len(self.masks) else delta.new_zeros(0, len(delta))
        )
        self.unified, masks, self.factors = unified_with(
            self.unified if len(self.unified) else delta,
            masks,
            self.factors,
            delta,
            [weight.numel() for weight in weights],
        )
        self.masks = packed(masks)
        prototypes = self._prototypes(task.classes, data)
        self.prototypes = torch.cat([self.prototypes, prototypes])
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])
        owner = len(self.factors) - 1
        self.owners = torch.cat([self.owners, self.owners.new_full((len(prototypes),), owner)])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """The mean logits of the models that answer for each image."""
        features = self.model.encode_image(images)
        answering = self._answering(features, candidates)
        total = self.model.similarities(features, self.model.class_features(candidates))
        total = total * answering[:, :1]
        for task in range(len(self.factors)):
            rows = answering[:, task + 1].nonzero()[:, 0]
            if len(rows):
                with self._model_of(task):
                    total[rows] += super().classify(images[rows.to(images.device)], candidates)
        return total / answering.sum(dim=1, keepdim=True)

    def footprint(self) -> Footprint:
        """The tested models have, beyond the backbone, the unified delta and the prototypes."""
        added = self.unified.numel() + self.factors.numel() + self.prototypes.numel()
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _answering(self, features: Tensor, candidates: ClassTexts) -> Tensor:
        """Which models answer for images of these zero-shot features.

        Returns:
            ``(B, 1 + T)`` bool; the first is zero-shot CLIP.
        """
        answering = torch.zeros(
            len(features), 1 + len(self.factors), dtype=torch.bool, device=features.device
        )
        known = self.owners[torch.isin(self.ids, self.ids.new_tensor(candidates.ids))]
        if self.choose == "dataset" and self._is_data_set(known, candidates):
            answering[:, 1 + int(known[0])] = True
            return answering
        answering[:, 0] = True
        if len(self.factors):
            similarities = nearness(features, self.prototypes, self.owners)
            count = min(self.nearest, len(self.factors))
            answering.scatter_(1, 1 + similarities.topk(count, dim=1).indices, True)
        return answering

    def _is_data_set(self, known: Tensor, candidates: ClassTexts) -> bool:
        """Whether the candidates, of which `known` are the tasks, are the classes of one task."""
        if not len(known) or len(known) != len(candidates):
            return False
        return bool((known == known[0]).all()) and len(known) == int(
            (self.owners == known[0]).sum()
        )

    @contextmanager
    def _model_of(self, task: int) -> Iterator[None]:
        """While open, the model is the one of a task."""
        weights = trained_parameters(self)
        start = flatten(weights)
        mask = unpacked(self.masks[task : task + 1], len(start))[0]
        assign(weights, start + self.factors[task] * mask * self.unified)
        try:
            yield
        finally:
            assign(weights, start)

    def _prototypes(self, classes: ClassTexts, data: TaskData) -> Tensor:
        """Per class the mean of image features and the mean of text features, ``(C, D)``."""
        texts = torch.stack(
            [self.model.encode_text(self.model.tokenize(p)).mean(dim=0) for p in classes.prompts]
        )
        sums, counts = torch.zeros_like(texts), texts.new_zeros(len(texts))
        for batch in data.batches(PASS_BATCH):
            chosen = F.one_hot(batch.labels, len(texts)).to(texts.dtype)
            sums += chosen.T @ self.model.encode_image(batch.images)
            counts += chosen.sum(dim=0)
        return prototypes_of(sums, counts, texts)


def prototypes_of(sums: Tensor, counts: Tensor, texts: Tensor) -> Tensor:
    """Class prototypes: ``v / |v|`` with v the mean of image mean and text mean.

    Args:
        sums: ``(C, D)`` sum of each class's image features.
        counts: ``(C,)`` how many; classes without images have their text mean only.
        texts: ``(C, D)`` mean of each class's text features, not normalised.
    """
    images = sums / counts.clamp(min=1)[:, None]
    both = torch.where(counts[:, None] > 0, (images + texts) / 2, texts)
    return F.normalize(both, dim=1)


def nearness(features: Tensor, prototypes: Tensor, owners: Tensor) -> Tensor:
    """Largest cosine of each image with a task's prototypes, ``(B, T)``.

    Args:
        features: ``(B, D)`` of unit length.
        prototypes: ``(K, D)`` of unit length.
        owners: ``(K,)`` the task of each, from 0 to T - 1.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosines = features.float() @ prototypes.T
    count = int(owners.max()) + 1
    return torch.stack([cosines[:, owners == t].amax(dim=1) for t in range(count)], dim=1)
