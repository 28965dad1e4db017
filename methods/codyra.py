"""CoDyRA: low-rank updates whose ranks are selected while they train, then merged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.optim import Optimizer

from clbench.clip.adapters.attach import attach
from clbench.clip.draws import Draws, linear_start
from clbench.clip.growing import let_grow
from clbench.clip.layers.together import declare
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import TrainingPlan, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class CoDyRA(Method):
    """Train gated low-rank updates, close the gates that matter least, and merge what is left.

    ``y = W x + b + B diag(g) A x`` on every linear layer of all blocks of both encoders. A starts
    Kaiming-uniform, B at zero and the gates g standard normal; all are trained. After the first
    `dense` share of a task, every step ends with a soft threshold,
    ``g <- sign(g) max(|g| - kappa, 0)``, where kappa climbs from 0 to `max_threshold` in `levels`
    equal levels. A rank whose gate is zero when the task ends is gone. After the task
    ``W <- W + B diag(g) A``, and the next one starts afresh.

    ``L = CE(image to text) + CE(text to image)``: each image chooses among the task's classes, and
    each class of the task among the images of the batch, all images of the class being targets:
    ``-(1 / C) sum_i log p(image i | text y_i)``.

    Stored: nothing. `surviving_ranks` tells how many ranks each update kept.

    Paper: https://arxiv.org/abs/2412.01004
    """

    name: ClassVar[str] = "codyra"
    title: ClassVar[str] = "CoDyRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2412.01004"
    transient: ClassVar[frozenset[str]] = frozenset({"texts", "thresholds"})

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(ge=1, description="Ranks of an update before selection.")] = 16,
        max_threshold: Annotated[
            float, Field(ge=0, description="The threshold on gates at the end of a task.")
        ] = 0.005,
        levels: Annotated[
            int, Field(ge=2, description="Levels in which the threshold climbs from zero.")
        ] = 50,
        dense: Annotated[
            float, Field(ge=0, le=1, description="Share of a task's steps without a threshold.")
        ] = 0.5,
        as_released: Annotated[
            bool,
            Field(
                description="Gates below twice the threshold close; classes of earlier tasks count "
                "in the mean over texts; more levels than steps mean no threshold."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put a gated update beside every linear layer of the blocks."""
        super().prepare(model)
        self.draws = Draws()
        self.adapters = attach(
            model,
            model.block_linears(),
            self.rank,
            scale=1.0,
            core="diagonal",
            trained=("down", "core", "up"),
        )
        self.selected = SelectedRanks(len(self.adapters))
        self.step = 0

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Start from random A and g, and B = 0."""
        generator = self.draws.generator
        for adapter in self.adapters.values():
            down = linear_start(adapter.down.shape, generator)
            gates = torch.randn(self.rank, generator=generator)
            adapter.set_factors(down=down, up=torch.zeros_like(adapter.up), core=gates)
        self.texts = task.classes.ids[-1] + 1 if self.as_released else len(task.classes)
        self.step = 0

    def optimizer(self, plan: TrainingPlan) -> Optimizer:
        """The recipe's; the thresholds follow from the number of steps."""
        levels = self.levels
        if not self.as_released:
            levels = min(levels, math.floor((1 - self.dense) * plan.steps))
        self.thresholds = thresholds(plan.steps, self.dense, levels, self.max_threshold)
        return plan.optimizer(trained_parameters(self))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy from images to texts and from texts to images."""
        texts = self.model.text_features(batch.prompts)
        logits = self.model.logits(batch.images, texts)
        own = logits.log_softmax(dim=0).gather(1, batch.labels[:, None])
        return {
            "image_to_text": F.cross_entropy(
                logits, batch.labels, label_smoothing=self.label_smoothing
            ),
            "text_to_image": -own.sum() / self.texts,
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Shrink the gates."""
        threshold = self.thresholds[self.step]
        self.step += 1
        if not threshold:
            return
        closing = 2 * threshold if self.as_released else threshold
        for adapter in self.adapters.values():
            gates = adapter.core
            assert gates is not None
            shrunk = gates - threshold * gates.sign()
            gates.copy_(torch.where(gates.abs() < closing, 0.0, shrunk))

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Count the ranks that are left, and merge them."""
        gates = [adapter.core for adapter in self.adapters.values()]
        self.selected.add([int(torch.count_nonzero(g)) for g in gates if g is not None])
        for adapter in self.adapters.values():
            adapter.merge()

    def surviving_ranks(self) -> dict[str, list[int]]:
        """How many ranks each layer's update kept, task by task, by the layer's name."""
        return dict(zip(self.adapters, self.selected.counts.T.tolist(), strict=True))

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken in the task."""
        return {"step": self.step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.step = state["step"]


@declare(idle=lambda _: True)  # a record of the past, on which nothing depends
class SelectedRanks(nn.Module):
    """How many ranks were left of every update.

    Args:
        layers: number of updates L.
    """

    counts: Tensor
    """``(T, L)`` int64, a row per task."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(0, layers, dtype=torch.int64))
        let_grow(self, "counts")

    def add(self, counts: list[int]) -> None:
        """Add a task."""
        self.counts = torch.cat([self.counts, self.counts.new_tensor([counts])])


def thresholds(steps: int, dense: float, levels: int, largest: float) -> list[float]:
    """The threshold after each of a task's steps.

    Levels are evenly spaced from 0 to `largest`. From step ``dense * steps`` on, the level rises at
    every multiple of ``floor((1 - dense) * steps / levels)``; with more levels than steps, never.

    >>> [round(t, 2) for t in thresholds(10, 0.4, 3, 0.08)]
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.04, 0.08, 0.08, 0.08, 0.08]
    """
    start = dense * steps
    every = math.floor((steps - start) / levels) if levels else 0
    level, found = 0, []
    for step in range(steps):
        if every and step >= start and step % every == 0:
            level = min(level + 1, levels - 1)
        found.append(largest * level / (levels - 1) if level and step > start else 0.0)
    return found
