"""GIFT: distillation and alignment on image-caption pairs, and a pull weighed by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.draws import Draws
from clbench.clip.layers.attention import SplitAttention
from clbench.clip.losses import alignment, classification, distillation, squared_distance
from clbench.clip.reference import ScoredPairs
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

KINDS = ("weight", "bias")
UNTOUCHED = 1e-6
"""Importance of a weight that the reference pairs give no gradient, as released."""


@final
class GIFT(Method):
    """Fine-tune all weights; keep what the previous model says of image-caption pairs.

    On a training batch and on pairs (I, C), with ``Z = s f(I) g(C)^T`` and ``Z_0`` the same under
    the model that the task started from:
    ``L = CE + R + consolidation sum F (theta - theta_start)^2``,
    ``R = distillation (D(Z_0, Z) + D(Z_0^T, Z^T)) + alignment (CE(Z, Y) + CE(Z^T, Y))``, where Y
    shares the target among equal captions. In every step ``F = g^2 / mean(g^2)`` per tensor of
    OpenAI's CLIP, with g the gradient of R alone.

    The paper's pairs are images that Stable Diffusion draws of classes seen so far; here they are
    real ones from the source `reference`. Nothing is stored between tasks: the model scores the
    pairs before it is trained.

    Paper: https://arxiv.org/abs/2503.04229
    """

    name: ClassVar[str] = "gift"
    title: ClassVar[str] = "GIFT"
    family: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.04229"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images"})
    transient: ClassVar[frozenset[str]] = frozenset({"start"})

    def __init__(
        self,
        *,
        distillation: DistillationWeight = 1.0,
        temperature: Temperature = 2.0,
        alignment: Annotated[
            float, Field(ge=0, description="Weight of the alignment of images and captions.")
        ] = 0.25,
        consolidation: Annotated[
            float, Field(ge=0, description="Weight of the pull to the task's first weights.")
        ] = 1.0,
        label_smoothing: LabelSmoothing = 0.2,
        reference: Annotated[
            str,
            Field(
                description="Source of the pairs: `benchmark`, `task`, `imagenet` or a folder "
                "`class/*.jpg`. The paper draws them with Stable Diffusion."
            ),
        ] = "benchmark",
        reference_count: Annotated[int, Field(ge=1, description="Pairs drawn per task.")] = 1000,
        reference_batch: ReferenceBatchSize = 64,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        self.draws = Draws()
        self.pairs = ScoredPairs()
        self.external = 0

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Draw pairs, let the model score them as it is now, and remember its weights."""
        pairs = data.reference_pairs(self.reference, self.reference_count, self.draws.seed())
        self.external = 0 if self.reference == "task" else pairs.nbytes
        self.pairs.set_pairs(pairs, self.model)
        self.start = [weight.detach().clone() for weight in trained_parameters(self)]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification, distillation, alignment, and the weighted pull."""
        classified = classification(self.model, batch, self.label_smoothing)
        pairs = self.pairs.take(self.reference_batch)
        captions = self.model.text_features(self.pairs.tokens, pairs.captions)[pairs.labels]
        z = self.model.similarities(self.model.encode_image(pairs.images), captions)
        distilled = self.distillation * distillation(pairs.teacher_logits, z, self.temperature)
        aligned = self.alignment * alignment(z, pairs.labels, self.label_smoothing)

        weights = trained_parameters(self)
        gradients = torch.autograd.grad(distilled + aligned, weights, allow_unused=True)
        by_weight = dict(zip(map(id, weights), gradients, strict=True))
        important = {
            id(weight): values
            for group in stored_together(self.model)
            for weight, values in zip(
                group, importance([by_weight[id(w)] for w in group]), strict=True
            )
        }
        pull = squared_distance(weights, self.start, [important[id(w)] for w in weights])
        return {
            "classification": classified,
            "distillation": distilled.detach() + _zero_with_gradient(weights, gradients),
            "alignment": aligned.detach(),
            "consolidation": self.consolidation * pull,
        }

    def end_task(self, task: Task, data: TaskData) -> None:
        """Let the pairs go."""
        self.pairs.clear()

    def footprint(self) -> Footprint:
        """Nothing is stored; the pairs are external data."""
        return Footprint(self.trainable_parameters(), 0, 0, self.external)

    def get_extra_state(self) -> dict[str, int]:
        """Bytes of external data."""
        return {"external": self.external}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.external = state["external"]


def stored_together(model: CLIP) -> list[list[nn.Parameter]]:
    """The trained weights by tensors of OpenAI's CLIP, where query, key and value are one."""
    attentions = [part for part in model.modules() if isinstance(part, SplitAttention)]
    layers = [(part.q_proj, part.k_proj, part.v_proj) for part in attentions]
    groups = [[getattr(layer, kind) for layer in three] for three in layers for kind in KINDS]
    packed = {id(weight) for group in groups for weight in group}
    others = (p for p in model.parameters() if p.requires_grad and id(p) not in packed)
    return [*groups, *([weight] for weight in others)]


def importance(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """``g^2 / mean(g^2)`` of the parts of a tensor, or a constant where there is no gradient."""
    known = [gradient.square() for gradient in gradients if gradient is not None]
    if len(known) < len(gradients):
        return [torch.tensor(UNTOUCHED)] * len(gradients)
    mean = torch.stack([part.sum() for part in known]).sum() / sum(part.numel() for part in known)
    return [part / mean.clamp_min(torch.finfo(mean.dtype).tiny) for part in known]


def _zero_with_gradient(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """Zero, but with these gradients: they are known, and need no second backward pass."""
    pairs = zip(weights, gradients, strict=True)
    linear = torch.stack([(w * g.detach()).sum() for w, g in pairs if g is not None]).sum()
    return linear - linear.detach()
