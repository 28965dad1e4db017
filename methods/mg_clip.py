"""MG-CLIP: low-rank updates that stop where the modality gap moves, and a visual classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from clbench.clip.adapters.attach import attach
from clbench.clip.draws import Draws, linear_start
from clbench.clip.growing import let_grow
from clbench.clip.heads import encoded, matches
from clbench.clip.losses import classification
from clbench.clip.merging import assign, flatten
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Dropout, LabelSmoothing, Rank
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan, rate_factor, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 256
PROGRESS: Final = ("step", "pass_steps", "passes", "level", "stopped")
"""What changes in training besides tensors."""
LOWEST: Final = 0.01
"""Share of the visual classifier's learning rate that is left at its end."""


@final
class MGCLIP(Method):
    """Train one low-rank update for as long as the modality gap stays; add a visual classifier.

    Keys and values of both encoders have an update, ``y = W x + b + (alpha / rank) B A x``, which
    all tasks go on training with the cross-entropy among their own classes. How long is found in
    the first task: ``n_e`` is the mean logit of its images with classes that are not theirs, after
    e passes. Where ``|n_0 - n_e| > drift |n_0|`` for the first time, the task ends as it was after
    pass ``e - 1`` (one pass at least), and later tasks take as many passes.

    The gap that is kept is made up for within the images: per class a vector w, which starts at
    the mean of its image features after the task and is trained with the cross-entropy of
    ``cos(f, w)`` among the task's classes. With p the softmax of CLIP's logits and v that of the
    cosines, the answer is ``(p + visual_weight v) / (1 + visual_weight)``. Among candidates not
    all learned, v shares out what p gives to the learned ones, and the others keep their p.

    Stored: the update, and a vector per class.

    Paper: https://arxiv.org/abs/2507.09118
    """

    name: ClassVar[str] = "mg_clip"
    title: ClassVar[str] = "MG-CLIP"
    family: ClassVar[str] = "Classifiers on features"
    paper: ClassVar[str] = "https://arxiv.org/abs/2507.09118"
    disjoint_classes: ClassVar[bool] = True
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end", "compares-candidates"})
    transient: ClassVar[frozenset[str]] = frozenset({"batches", "images", "watching"})

    before: Tensor
    """Trained weights after the last pass, while it is open how many there will be, ``(d,)``."""
    rows: Tensor
    """The visual classifier, ``(K, D)``."""
    ids: Tensor
    """The numbers of its classes in the whole benchmark, ``(K,)``."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        rank: Rank = 8,
        alpha: Annotated[
            float, Field(gt=0, description="Numerator of the update's scale, `alpha / rank`.")
        ] = 1.0,
        dropout: Dropout = 0.0,
        drift: Annotated[
            Annotated[float, Field(gt=0)] | None,
            Field(
                description="How far the mean logit of wrong classes may move in the first task, "
                "as a share; None trains as long as the recipe says."
            ),
        ] = 0.1,
        visual_weight: Annotated[
            float, Field(ge=0, description="Weight of the visual classifier; that of CLIP is 1.")
        ] = 4.0,
        visual_lr: Annotated[
            float, Field(gt=0, description="Learning rate of the visual classifier.")
        ] = 5e-4,
        visual_epochs: Annotated[
            int, Field(ge=0, description="Passes in which the visual classifier is trained.")
        ] = 3,
        visual_batch: Annotated[
            int, Field(ge=1, description="Images per step of the visual classifier.")
        ] = 64,
        as_released: Annotated[
            bool,
            Field(
                description="Take a softmax of CLIP's softmax; the drift is relative to the signed "
                "logit, and its batches count alike."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside keys and values, and make room for the visual classifier."""
        super().prepare(model)
        self.draws = Draws()
        chosen = model.attention_linears(projections=("k", "v"))
        self.adapters = attach(
            model, chosen, self.rank, self.alpha / self.rank, dropout=self.dropout
        )
        self.step = self.pass_steps = self.passes = 0
        self.level = 0.0
        self.stopped = False
        self.register_buffer("before", torch.zeros(0))
        self.register_buffer("rows", torch.zeros(0, model.network.visual.output_dim))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "before", "rows", "ids")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Go on with the update; in the first task it is zero, and the gap is measured."""
        self.batches, self.images = data.batches, len(data)
        self.step, self.stopped = 0, False
        first = not len(self.ids)
        self.watching = first and self.drift is not None and len(task.classes) > 1
        if first:
            for adapter in self.adapters.values():
                down = linear_start(adapter.down.shape, self.draws.generator)
                adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))
        if self.watching:
            self.level = self._wrong_logit()

    def optimizer(self, plan: TrainingPlan) -> tuple[Optimizer, LRScheduler]:
        """The recipe's over the passes that there will be; what comes after changes nothing."""
        self.pass_steps = math.ceil(self.images / min(self.images, plan.settings.batch_size))
        total = min(plan.steps, self.passes * self.pass_steps or plan.steps)
        warmup = plan.settings.warmup_steps(total)

        def rate(step: int) -> float:
            if self.stopped or step >= total:
                return 0.0
            return rate_factor(step, warmup, total, plan.settings.schedule)

        optimizer = plan.optimizer(trained_parameters(self))
        return optimizer, LambdaLR(optimizer, rate)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def after_step(self) -> None:
        """At the end of a pass over the first task, see whether the gap has moved too far."""
        self.step += 1
        if self.stopped or not self.watching or self.step % self.pass_steps:
            return
        done = self.step // self.pass_steps
        weights = trained_parameters(self)
        if not drifted(self.level, self._wrong_logit(), self.drift, signed=self.as_released):
            self.before = flatten(weights)
            return
        if done > 1:
            assign(weights, self.before)
        self.passes, self.stopped = max(done - 1, 1), True

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Learn the visual classifier of the task's classes."""
        self.before = self.before[:0]
        features, labels = encoded(self.model, data, PASS_BATCH)
        orders = (
            torch.randperm(len(labels), generator=self.draws.generator).to(labels.device)
            for _ in range(self.visual_epochs)
        )
        rows = trained_rows(
            class_means(features, labels, len(task.classes)),
            features,
            labels,
            [part for order in orders for part in order.split(self.visual_batch)],
            self.visual_lr,
        )
        self.rows = torch.cat([self.rows, rows])
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """CLIP's probabilities, mixed with the visual classifier's where it knows the class."""
        features = self.model.encode_image(images)
        logits = self.model.similarities(features, self.model.class_features(candidates))
        answers = logits.softmax(dim=1)
        if self.as_released:
            answers = answers.softmax(dim=1)
        learned, kept = matches(candidates.ids, self.ids).nonzero(as_tuple=True)
        if len(learned):
            text = answers[:, learned]
            vision = cosines(features, self.rows[kept]).softmax(dim=1) * text.sum(1, keepdim=True)
            answers[:, learned] = fused(text, vision, self.visual_weight)
        return answers

    def footprint(self) -> Footprint:
        """The tested model has the update and the visual classifier besides the backbone."""
        factors = [p for a in self.adapters.values() for p in (a.down, a.up)]
        added = self.rows.numel() + sum(factor.numel() for factor in factors)
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def get_extra_state(self) -> dict[str, Any]:
        """Where in a task training is, the first task's gap, and how many passes tasks take."""
        return {name: getattr(self, name) for name in PROGRESS}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up where the state was saved."""
        for name in PROGRESS:
            setattr(self, name, state[name])

    @torch.no_grad()
    def _wrong_logit(self) -> float:
        """Mean logit of the task's images with classes that are not theirs."""
        levels, sizes = [], []
        for batch in self.batches(PASS_BATCH):
            texts = self.model.text_features(batch.prompts)
            levels.append(wrong_logit(self.model.logits(batch.images, texts), batch.labels))
            sizes.append(1 if self.as_released else len(batch.labels))
        weights = torch.tensor(sizes).to(levels[0])
        return float(torch.stack(levels) @ weights / weights.sum())


def wrong_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean logit of images ``(B, C)`` with the C - 1 classes that are not theirs."""
    wrong = logits.sum(dim=1) - logits.gather(1, labels[:, None])[:, 0]
    return wrong.mean() / (logits.shape[1] - 1)


def drifted(start: float, now: float, most: float, *, signed: bool = False) -> bool:
    """Whether a number moved by more than a share of what it was.

    Args:
        start: the number as it was.
        now: as it is.
        most: the share.
        signed: divide by the number as it was and not by its size, so that a negative one never
            counts as moved.
    """
    return abs(start - now) / ((start if signed else abs(start)) or math.inf) > most


def cosines(features: Tensor, rows: Tensor) -> Tensor:
    """``cos(f, w)`` of features ``(B, D)`` and rows ``(C, D)``, in full precision, ``(B, C)``."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=1) @ F.normalize(rows.float(), dim=1).T


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean feature ``(C, D)`` of each class, zero where there are none."""
    chosen = F.one_hot(labels, classes).to(features.dtype)
    return chosen.T @ features / chosen.sum(dim=0).clamp(min=1)[:, None]


def trained_rows(
    rows: Tensor, features: Tensor, labels: Tensor, batches: Iterable[Tensor], lr: float
) -> Tensor:
    """Train a cosine classifier: Adam, the rate on a cosine down to a hundredth.

    Args:
        rows: ``(C, D)`` where it starts.
        features: ``(N, D)``.
        labels: ``(N,)``.
        batches: which features make up each step.
        lr: learning rate at the start.

    Returns:
        ``(C, D)``.
    """
    weight = nn.Parameter(rows.clone())
    optimizer = Adam([weight], lr=lr)
    batches = [*batches]
    for step, batch in enumerate(batches):
        left = rate_factor(step, 0, len(batches))
        optimizer.param_groups[0]["lr"] = lr * (LOWEST + (1 - LOWEST) * left)
        with torch.enable_grad():
            loss = F.cross_entropy(cosines(features[batch], weight), labels[batch])
        (weight.grad,) = torch.autograd.grad(loss, [weight])
        optimizer.step()
    return weight.detach()


def fused(text: Tensor, vision: Tensor, weight: float) -> Tensor:
    """``(text + weight vision) / (1 + weight)``."""
    return (text + weight * vision) / (1 + weight)
