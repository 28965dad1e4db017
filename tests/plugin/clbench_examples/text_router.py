"""Text adapters for every task; an image is scored with those of the task that it looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import Draws
from clbench.clip.growing import GrowingList, let_grow
from clbench.clip.layers.together import declare
from clbench.clip.losses import classification
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing, Rank
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


def low_rank(like: nn.Linear, rank: int) -> nn.Sequential:
    """``B A``, in the shape of a layer's weight."""
    down = nn.Linear(like.in_features, rank, bias=False, device=like.weight.device)
    up = nn.Linear(rank, like.out_features, bias=False, device=like.weight.device)
    return nn.Sequential(down, up)


# Text features are remembered until something that they depend on changes. The class says that
# this is its tensors, its parts and its plain attributes, so `chosen` is included.
@declare(pure=True)
class RoutedLinear(nn.Module):
    """A frozen layer and an update per task: ``y = W x + b + B_k A_k x`` for the `chosen` k."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.experts = GrowingList(lambda: low_rank(base, rank))
        self.chosen: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(..., in)``."""
        y: Tensor = self.base(x)
        return y if self.chosen is None else y + self.experts[self.chosen](x)


@final
class TextRouter(Method):
    """Train new low-rank updates of the text encoder in every task, and route images to them.

    The image encoder is frozen, and the mean of its features is kept for every task. At test, an
    image goes to the task whose mean is nearest, and is scored among the candidates with the
    class features of that task's text encoder. So no task disturbs another.

    Paper: https://arxiv.org/abs/2106.09685 (LoRA, whose updates these are)
    """

    name: ClassVar[str] = "text-router"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    traits: ClassVar[frozenset[str]] = frozenset(
        {"answers-change-at-end", "resumes-through-begin-task"}
    )

    means: Tensor
    """Mean image feature of every task learned, ``(T, D)``, of unit length."""

    def __init__(self, *, rank: Rank = 8, label_smoothing: LabelSmoothing = 0.2) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put a routed layer in the place of every attention weight of the text encoder."""
        super().prepare(model)
        self.draws = Draws()
        self.layers = []
        for name, layer in model.attention_linears("text"):
            self.layers.append(RoutedLinear(layer, self.rank))
            model.replace(name, self.layers[-1])
        self.register_buffer("means", torch.zeros(0, model.network.visual.output_dim))
        let_grow(self, "means")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Add an expert to every layer, a random A and B = 0; only the new ones train."""
        self.model.requires_grad_(False)
        for layer in self.layers:
            down, up = layer.experts.grow().requires_grad_(True).parameters()
            start = torch.empty(down.shape)  # drawn on the CPU: the same on every device
            nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=self.draws.generator)
            down.data.copy_(start)
            up.data.zero_()
        self._choose(task.index)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Keep the mean feature of the task's images."""
        features = [self.model.encode_image(batch.images) for batch in data.batches(64)]
        mean = F.normalize(torch.cat(features).mean(dim=0, keepdim=True), dim=-1)
        self.means = torch.cat([self.means, mean])
        self._choose(None)

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Score every image with the text encoder of the task it is nearest to."""
        if not len(self.means):
            return super().classify(images, candidates)
        features = self.model.encode_image(images)
        nearest = self.model.similarities(features, self.means).argmax(dim=1)
        logits = features.new_empty(len(features), len(candidates))
        for expert in nearest.unique().tolist():
            self._choose(expert)
            classes = self.model.class_features(candidates)
            logits[nearest == expert] = self.model.similarities(
                features[nearest == expert], classes
            )
        self._choose(None)
        return logits

    def footprint(self) -> Footprint:
        """The experts are part of the tested model."""
        added = sum(p.numel() for layer in self.layers for p in layer.experts.parameters())
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _choose(self, expert: int | None) -> None:
        for layer in self.layers:
            layer.chosen = expert
