"""DIKI: attention prefixes per task, faded out on images that look like no task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, final

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from clbench.clip.adapters.gates import Gates
from clbench.clip.adapters.prefixes import add_prefixes, choose, choosing
from clbench.clip.draws import Draws
from clbench.clip.losses import classification
from clbench.clip.subspaces.gaussians import Gaussians
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan, rate_factor, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 64


@final
class DIKI(Method):
    """Train keys and values beside those of the first blocks' attention, new ones for each task.

    Their share of a block, ``w softmax(q K^T / sqrt(d_h)) V``, has a softmax of its own and starts
    at zero. CLIP itself is frozen. Each task has a normal distribution of the frozen model's image
    features x; at test an image gets the prefixes of the task under which x is most likely, with
    ``w = sigmoid(log p(x) / divisor - 1)``, in the image encoder and in the text encoder alike. In
    training w = 1.

    So that texts need not be encoded for every image, their features are computed for w = 0 and
    w = 1, with `text_levels` also in between, and interpolated. With `as_released` a test batch
    votes: all its images get the prefixes of one task, and the texts the mean of their weights.

    With `gates`, each block of the image encoder decides from x, for each image, whether it uses
    its prefix, as in IAP (https://arxiv.org/abs/2503.20612): of two linear maps of x per task and
    block, the larger counts, in training with Gumbel noise and the gradient of a softmax.

    Stored: the prefixes, gates, mean and root of the covariance per task.

    Paper: https://arxiv.org/abs/2407.05342
    """

    name: ClassVar[str] = "diki"
    title: ClassVar[str] = "DIKI"
    family: ClassVar[str] = "Experts and prompts"
    paper: ClassVar[str] = "https://arxiv.org/abs/2407.05342"
    traits: ClassVar[frozenset[str]] = frozenset(
        {"answers-change-at-end", "resumes-through-begin-task"}
    )

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        length_vision: Annotated[
            int, Field(ge=1, description="Keys and values per task and block of the image encoder.")
        ] = 8,
        length_text: Annotated[
            int, Field(ge=1, description="Keys and values per task and block of the text encoder.")
        ] = 8,
        depth_vision: Annotated[
            int, Field(ge=1, description="Blocks of the image encoder with prefixes, the first.")
        ] = 8,
        depth_text: Annotated[
            int, Field(ge=1, description="Blocks of the text encoder with prefixes, the first.")
        ] = 8,
        divisor: Annotated[
            float, Field(gt=0, description="What log densities are divided by for the weight.")
        ] = 512.0,
        jitter: Annotated[
            float, Field(gt=0, description="Is added to the diagonal of the covariances.")
        ] = 1e-7,
        text_levels: Annotated[
            int,
            Field(ge=1, description="Steps of the weight between which text features lie."),
        ] = 1,
        last_rate: Annotated[
            float,
            Field(ge=0, le=1, description="Share of the learning rate that schedules end at."),
        ] = 1e-3,
        gates: Annotated[
            bool,
            Field(
                description="Each block of the image encoder decides for each image whether it "
                "uses its prefix (IAP)."
            ),
        ] = False,
        as_released: Annotated[
            bool,
            Field(
                description="A test batch votes for one task, and its texts get the mean weight."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    @property
    def decides_by_batch(self) -> bool:  # type: ignore[override]
        """As released, the test batch decides."""
        return bool(self.as_released)

    def prepare(self, model: CLIP) -> None:
        """Make room for prefixes, and for the distributions of tasks."""
        super().prepare(model)
        self.draws = Draws()
        self.vision = add_prefixes(model.blocks("vision")[: self.depth_vision], self.length_vision)
        self.text = add_prefixes(model.blocks("text")[: self.depth_text], self.length_text)
        size = model.network.visual.output_dim
        self.gaussians = Gaussians(size, self.jitter)
        self.gating = Gates(len(self.vision), size) if self.gates else None

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Add prefixes; only the new ones train."""
        self.model.requires_grad_(False)
        for prefixes in (*self.vision, *self.text):
            prefixes.grow(self.draws.generator).requires_grad_(True)
        if self.gating is not None:
            self.gating.requires_grad_(False)
            self.gating.grow(self.draws.generator).requires_grad_(True)
        choose((*self.vision, *self.text), len(self.gaussians))

    def optimizer(self, plan: TrainingPlan) -> Optimizer | tuple[Optimizer, LRScheduler]:
        """The recipe's, whose schedule ends at a share of the learning rate."""
        optimizer = plan.optimizer(trained_parameters(self))
        warmup, kind = plan.settings.warmup_steps(plan.steps), plan.settings.schedule

        def factor(step: int) -> float:
            rate = rate_factor(step, warmup, plan.steps, kind)
            return rate if step < warmup else self.last_rate + (1 - self.last_rate) * rate

        return optimizer, LambdaLR(optimizer, factor)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        if self.gating is not None:
            task = len(self.gaussians)
            choose(self.vision, None)
            with torch.no_grad():
                features = self._frozen_features(batch.images)
            choose(self.vision, task, self.gating(features, task, self.draws.generator))
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Fit the distribution of the task's images."""
        choose((*self.vision, *self.text), None)
        features = [self._frozen_features(batch.images) for batch in data.batches(PASS_BATCH)]
        self.gaussians.add(torch.cat(features))

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Score every image with the prefixes of the task that it looks like."""
        if not len(self.gaussians):
            return super().classify(images, candidates)
        frozen = self._frozen_features(images)
        tasks, weights = recognised(self.gaussians.log_density(frozen), self.divisor)
        if self.as_released:
            tasks = torch.full_like(tasks, int(tasks.bincount().argmax()))
        opened = 1.0 if self.gating is None else self.gating(frozen, tasks)
        with choosing(self.vision, tasks, weights * opened):
            features = self.model.encode_image(images)
        if self.as_released:
            texts = self._texts(candidates, int(tasks[0]), weights.mean().item())
            return self.model.similarities(features, texts)
        logits = features.new_empty(len(features), len(candidates))
        for task in tasks.unique().tolist():
            rows = (tasks == task).nonzero()[:, 0]
            logits[rows] = self._scores(features[rows], weights[rows], task, candidates)
        return logits

    def footprint(self) -> Footprint:
        """Prefixes, gates and distributions are part of the tested model."""
        parts = [*self.vision, *self.text, *([] if self.gating is None else [self.gating])]
        grown = sum(p.numel() for part in parts for p in part.parameters())
        added = grown + self.gaussians.means.numel() + self.gaussians.roots.numel()
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _frozen_features(self, images: Tensor) -> Tensor:
        """Features of CLIP itself, in full precision: densities see the smallest variances."""
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_image(images)

    def _texts(self, candidates: ClassTexts, task: int, weight: float) -> Tensor:
        """Class features under a task's prefixes, ``(C, D)``."""
        with choosing(self.text, task if weight else None, weight):
            return self.model.class_features(candidates)

    def _scores(
        self, features: Tensor, weights: Tensor, task: int, candidates: ClassTexts
    ) -> Tensor:
        """Logits among texts whose features lie between those of two levels of the weight."""
        logits = features.new_empty(len(features), len(candidates))
        places = weights * self.text_levels
        levels = places.floor().clamp(max=self.text_levels - 1)
        for level in levels.unique().tolist():
            rows = (levels == level).nonzero()[:, 0]
            below, above = (
                self._texts(candidates, task, (level + i) / self.text_levels) for i in (0, 1)
            )
            share = (places[rows] - level)[:, None]
            mixed = torch.lerp(
                self.model.similarities(features[rows], below),
                self.model.similarities(features[rows], above),
                share,
            )
            cosine = (below * above).sum(dim=1)
            length = (1 - 2 * share * (1 - share) * (1 - cosine)).sqrt()
            logits[rows] = mixed / length
        return logits


def recognised(log_density: Tensor, divisor: float) -> tuple[Tensor, Tensor]:
    """The most likely task of each image, and how much of its prefixes the image gets.

    ``w = sigmoid(max_t log p_t / divisor - 1)``.

    Args:
        log_density: ``(B, T)``.
        divisor: scale of the log densities.

    Returns:
        ``(B,)`` int64 and ``(B,)`` float32.
    """
    best, tasks = log_density.max(dim=1)
    return tasks, (best / divisor - 1).sigmoid().float()
