"""iCaRL on data sets: images of earlier tasks are kept, and what a teacher sees in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.losses import classification, classification_and_distillation
from clbench.clip.teacher import Teacher, frozen_copy
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import (
    DistillationWeight,
    LabelSmoothing,
    Temperature,
)
from clbench.core.method import Footprint, Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH = 256
RELEASED_LIMIT = 30_000
"""Images of a data set, from its beginning on, that the released code looks at."""


@final
class ICaRL(Method):
    """Fine-tune all weights; distil a teacher's view of images kept from earlier tasks.

    From the second task on ``L = CE + distillation (D(t, z) + D(t^T, z^T))`` with
    ``z = s f(M) g_0(C)^T`` and ``t = s f_0(M) g_0(C)^T``: M are kept images, C the training
    prompts of the current task's classes, f_0 and g_0 the encoders of the pre-trained CLIP or of
    the model that the task started from. Kept images are not classified.

    After task t every task has at most ``capacity // t`` images in the memory. They are chosen by
    herding: one after the other, each such that the mean of the chosen features comes closest to
    the mean of all. Images chosen later go first when shares shrink.

    `as_released` chooses as the release does: in the first task the first images of the data set,
    later those at wrong places, because an index into a shrinking list is used in the whole one;
    a new task gets ``capacity - capacity // t`` images, so the memory outgrows its capacity; kept
    images are always seen in the same order; and a previous model as teacher shares its weights
    with the trained one, so that nothing is distilled.

    Stored: the kept images, and the pre-trained CLIP if it is the teacher.

    Paper: https://arxiv.org/abs/1611.07725 (on CLIP as in ZSCL, https://arxiv.org/abs/2303.06628)
    """

    name: ClassVar[str] = "icarl"
    title: ClassVar[str] = "iCaRL"
    family: ClassVar[str] = "Replay"
    paper: ClassVar[str] = "https://arxiv.org/abs/1611.07725"
    needs: ClassVar[frozenset[str]] = frozenset({"replay"})
    transient: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __init__(
        self,
        *,
        capacity: Annotated[int, Field(ge=1, description="Images kept in all.")] = 10_000,
        teacher: Annotated[
            Literal["initial", "previous"],
            Field(description="The pre-trained CLIP, or the model that a task starts from."),
        ] = "initial",
        distillation: DistillationWeight = 1.0,
        temperature: Temperature = 2.0,
        label_smoothing: LabelSmoothing = 0.2,
        reference_batch: Annotated[int, Field(ge=1, description="Kept images per step.")] = 64,
        as_released: Annotated[
            bool,
            Field(description="Choose, count and order the kept images as the release does."),
        ] = False,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale, and make room for images."""
        super().prepare(model)
        model.requires_grad_(True)
        self.initial = frozen_copy(model) if self.teacher == "initial" else None
        self.draws = Draws()
        self.memory = Exemplars(shuffled=not self.as_released)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Let the teacher read the task's class names."""
        self.judge: Teacher | None = None
        if len(self.memory):
            model = self.initial
            if model is None:
                model = self.model if self.as_released else frozen_copy(self.model)
            self.judge = Teacher(model, model.tokenize(task.classes.training_prompts))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes, and distillation on kept images."""
        if self.judge is None:
            return {"classification": classification(self.model, batch, self.label_smoothing)}
        classified, distilled = classification_and_distillation(
            self.model,
            batch,
            self.memory.take(self.reference_batch, self.draws.generator),
            self.judge,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
        )
        return {"classification": classified, "distillation": self.distillation * distilled}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Shrink the shares of earlier tasks and choose images of this one."""
        learned = len(self.memory.counts) + 1
        share = self.capacity // learned
        room = self.capacity - share if self.as_released and learned > 1 else share
        self.memory.shrink(share)
        self.memory.add(images_at(self._choose(data, room), data))

    def _choose(self, data: TaskData, room: int) -> Tensor:
        """Which images of a task are kept, at most `room`."""
        if self.as_released and not len(self.memory.counts):
            return torch.arange(min(len(data), room, RELEASED_LIMIT))
        passed = (self.model.encode_image(batch.images) for batch in data.batches(PASS_BATCH))
        features = torch.cat([*passed])
        if not self.as_released:
            return herd(features, room)
        return positions_left(herd(features[:RELEASED_LIMIT], room))

    def footprint(self) -> Footprint:
        """What is stored are the images, and the teacher if it is the first model."""
        teacher = [] if self.initial is None else [*self.initial.parameters()]
        stored = self.memory.images.nbytes + sum(tensor.nbytes for tensor in teacher)
        return Footprint(self.trainable_parameters(), 0, stored, 0)


@final
class Exemplars(nn.Module):
    """Images of earlier tasks, task after task, the most important of each first.

    Args:
        shuffled: whether every pass has a random order of its own.
    """

    images: Tensor
    """``(M, 3, H, W)`` uint8."""
    counts: Tensor
    """How many of them are of each task, ``(t,)`` int64."""
    order: Tensor
    """The order of the pass under way, ``(M,)`` int64."""

    def __init__(self, *, shuffled: bool) -> None:
        super().__init__()
        self._shuffled = shuffled
        self._position = 0
        self.register_buffer("images", torch.zeros(0, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("order", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "images", "counts", "order")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, count: int, generator: torch.Generator) -> Tensor:
        """The next images of a pass; the last batch of a pass may be smaller."""
        if not self._position:
            drawn = torch.randperm(len(self), generator=generator)
            self.order = (drawn if self._shuffled else torch.arange(len(self))).to(self.order)
        part = self.order[self._position : self._position + count]
        self._position = (self._position + len(part)) % len(self)
        return self.images[part]

    def shrink(self, share: int) -> None:
        """Keep of every task the first `share` images, and end the pass."""
        parts = self.images.split(self.counts.tolist()) if len(self) else ()
        self.images = torch.cat([self.images[:0], *(part[:share] for part in parts)])
        self.counts = self.counts.clamp(max=share)
        self.order, self._position = self.order[:0], 0

    def add(self, images: Tensor) -> None:
        """Add the images of another task, the most important first."""
        self.images = torch.cat([self.images, images]) if len(self) else images
        self.counts = torch.cat([self.counts, self.counts.new_tensor([len(images)])])

    def get_extra_state(self) -> int:
        """Where in a pass the next image is."""
        return self._position

    def set_extra_state(self, state: int) -> None:
        """Take up where the state was saved."""
        self._position = state


def herd(features: Tensor, count: int) -> Tensor:
    """The rows that stand for all, at most `count`, in the order in which they are chosen.

    With mu the mean of all rows and S the sum of the k - 1 chosen ones, the k-th is the row f, not
    chosen yet, that minimises ``||mu - (S + f) / k||``.

    Args:
        features: ``(N, D)``, of unit length.
        count: how many rows.
    """
    features = features.double()
    mean = features.mean(dim=0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    rows: list[Tensor] = []
    for k in range(1, min(count, len(features)) + 1):
        # Of all f have unit length, what is smallest where f (k mu - S) is largest.
        scores = features @ (k * mean - total)
        rows.append(scores.masked_fill(~free, -torch.inf).argmax())
        total += features[rows[-1]]
        free[rows[-1]] = False
    return torch.stack(rows)


def positions_left(rows: Tensor) -> Tensor:
    """Where each chosen row stood among those that were left when it was chosen."""
    earlier = torch.ones(len(rows), len(rows), dtype=torch.bool, device=rows.device).tril(-1)
    return rows - ((rows[None] < rows[:, None]) & earlier).sum(dim=1)


def images_at(rows: Tensor, data: TaskData) -> Tensor:
    """The images at some rows of a training set in its fixed order; rows may repeat."""
    rows = rows.cpu()
    parts, places, first = [], [], 0
    for batch in data.batches(PASS_BATCH):
        (here,) = torch.nonzero((rows >= first) & (rows < first + len(batch.images)), as_tuple=True)
        parts.append(batch.images[(rows[here] - first).to(batch.images.device)])
        places.append(here)
        first += len(batch.images)
    return torch.cat(parts)[torch.cat(places).argsort().to(parts[0].device)]
