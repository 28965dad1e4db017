"""SPU: a few entries of each block's first MLP layer are trained, and old images are replayed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.losses import alignment
from clbench.clip.replay import ReplayMemory
from clbench.core.data import Batch, TaskData
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import TrainingPlan, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK: Final = 256
"""Images offered to the memory at once."""


@final
class SPU(Method):
    """Train the entries of each block's first MLP layer that the task's outputs depend on most.

    Before a task, the score of an entry is the size of the gradient of ``mean_i sum_j Z_ij^2``
    over batches of the task's images with their prompts, ``Z = s f(I) g(C)^T``. Of the first MLP
    layer of every block of both encoders, the `selected` share of entries with the largest scores
    is trained; beside it the layer's bias and the image projection. All others keep their bits.

    ``L = (CE(Z, Y) + CE(Z^T, Y)) / 2`` on a batch of the task and, from the second task on, one
    drawn from the memory, where Y shares the target among equal prompts.

    Stored: at most `capacity` images as uint8, equally many of every class, with their labels, and
    the prompts of the classes learned.

    Paper: https://arxiv.org/abs/2308.12462
    """

    name: ClassVar[str] = "spu"
    title: ClassVar[str] = "SPU"
    family: ClassVar[str] = "Replay"
    paper: ClassVar[str] = "https://arxiv.org/abs/2308.12462"
    disjoint_classes: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"replay"})
    transient: ClassVar[frozenset[str]] = frozenset({"masks", "start", "tasks", "count", "silent"})

    prompts: Tensor
    """Tokens of the training prompts of all classes begun, ``(K, L)``."""
    ids: Tensor
    """The numbers of these classes in the whole benchmark, ``(K,)``."""

    def __init__(
        self,
        *,
        selected: Annotated[
            float, Field(gt=0, le=1, description="Share of a layer's entries that is trained.")
        ] = 0.1,
        scored: Annotated[
            float, Field(gt=0, le=1, description="Share of a task's batches used for the scores.")
        ] = 0.25,
        score_batch: Annotated[
            int, Field(ge=1, description="Images per batch for the scores.")
        ] = 128,
        capacity: Annotated[int, Field(ge=1, description="Images kept at most.")] = 2000,
        replayed: Annotated[int, Field(ge=1, description="Images replayed per step.")] = 128,
        as_released: Annotated[
            bool,
            Field(
                description="Earlier batches count more in the scores, which take one or two more; "
                "weight decay reaches all entries; the first pass over the images has rate zero "
                "and no replay, then the rate hardly falls."
            ),
        ] = False,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train first MLP layers and the image projection, and make room for what is kept."""
        super().prepare(model)
        for layer in _first_layers(model):
            layer.requires_grad_(True)
        model.network.visual.proj.requires_grad_(True)
        self.draws = Draws()
        self.kept = ReplayMemory(self.capacity, balanced=True)
        self.register_buffer("prompts", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "prompts", "ids")
        self.step = 0

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Add the task's classes, and select the entries to train."""
        prompts = self.model.tokenize(task.classes.training_prompts)
        self.prompts = pad_sequence([*self.prompts, *prompts], batch_first=True)
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])
        full = max(1, len(data) // self.score_batch)
        count = math.ceil(self.scored * full)
        if self.as_released:
            count = min(full, math.floor(self.scored * full) + 2)
        batches = islice(data.batches(self.score_batch, seed=self.draws.seed()), count)
        scores = output_gradients(self.model, batches, again=self.as_released)
        self.masks = [largest(score, self.selected) for score in scores]
        self.start = [layer.weight.detach().clone() for layer in _first_layers(self.model)]
        self.tasks, self.count = task.count, len(data)
        self.step = self.silent = 0

    def optimizer(self, plan: TrainingPlan) -> Optimizer | tuple[Optimizer, LRScheduler]:
        """The recipe's, or with the released schedule, which counts passes over the images."""
        optimizer = plan.optimizer(trained_parameters(self))
        if not self.as_released:
            return optimizer
        self.silent = epoch = max(1, self.count // plan.settings.batch_size)
        total = plan.steps // epoch * self.tasks
        return optimizer, LambdaLR(optimizer, lambda step: released_rate(step // epoch, total))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Contrastive loss of new images and, from the second task on, replayed ones."""
        images = [batch.images]
        rows = batch.labels + len(self.ids) - len(batch.prompts)
        if len(self.kept) and self.step >= self.silent:
            old = self.kept.sample(self.replayed, self.draws.generator)
            images.append(old.images)
            rows = torch.cat([rows, (old.ids[:, None] == self.ids).int().argmax(dim=1)])
        features = torch.cat([*self.model.encode_together(*images)])
        rows, labels = torch.unique(rows, return_inverse=True)
        texts = self.model.text_features(self.prompts, rows)[labels]
        return {"contrastive": alignment(self.model.similarities(features, texts), labels) / 2}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Drop the gradients of entries that were not selected."""
        for layer, mask in zip(_first_layers(self.model), self.masks, strict=True):
            assert layer.weight.grad is not None
            layer.weight.grad.mul_(mask)

    @torch.no_grad()
    def after_step(self) -> None:
        """Undo what the optimizer did to entries that were not selected."""
        self.step += 1
        if self.as_released:
            return
        layers = _first_layers(self.model)
        for layer, mask, start in zip(layers, self.masks, self.start, strict=True):
            layer.weight.copy_(torch.where(mask, layer.weight, start))

    def end_task(self, task: Task, data: TaskData) -> None:
        """Offer the task's images to the memory in random order."""
        ids = self.ids.new_tensor(task.classes.ids)
        for batch in data.batches(CHUNK, seed=self.draws.seed()):
            self.kept.offer(batch.images, ids[batch.labels], self.draws.generator)

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken in the task."""
        return {"step": self.step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.step = state["step"]


def output_gradients(model: CLIP, batches: Iterable[Batch], *, again: bool = False) -> list[Tensor]:
    """Gradients of the squared logits with respect to each first MLP layer's weight, added up.

    Of a batch of images I and their prompts C, that of ``mean_i sum_j Z_ij^2``,
    ``Z = s f(I) g(C)^T``.

    Args:
        model: whose first MLP layers require grad.
        batches: of the task's images.
        again: add the gradients of all batches so far again with each batch, as released: the
            first of n batches counts n times.
    """
    weights = [layer.weight for layer in _first_layers(model)]
    sums = [torch.zeros_like(weight) for weight in weights]
    repeated = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        with torch.enable_grad():
            texts = model.encode_text(batch.prompts)[batch.labels]
            size = model.logits(batch.images, texts).square().sum(dim=1).mean()
            gradients = torch.autograd.grad(size, weights)
        for one, many, gradient in zip(sums, repeated, gradients, strict=True):
            one.add_(gradient)
            many.add_(one)
    return repeated if again else sums


def largest(scores: Tensor, share: float) -> Tensor:
    """Where the `share` of entries of largest absolute value is, a mask of the same shape.

    >>> largest(torch.tensor([[3.0, -4.0], [0.0, 1.0]]), 0.5)
    tensor([[ True,  True],
            [False, False]])
    """
    count = int(share * scores.numel())
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.abs().flatten().topk(count).indices] = True
    return mask.view_as(scores)


def released_rate(epoch: int, total: int) -> float:
    """Factor on the learning rate in the release: zero in the first epoch, then a cosine.

    >>> [round(released_rate(epoch, 5), 3) for epoch in range(5)]
    [0.0, 1.0, 0.854, 0.5, 0.146]
    """
    if epoch == 0:
        return 0.0
    return (1 + math.cos(math.pi * (epoch - 1) / max(1, total - 1))) / 2


def _first_layers(model: CLIP) -> list[nn.Linear]:
    """The first MLP layer of every block, text blocks before vision blocks."""
    blocks: list[Any] = [*model.blocks("text"), *model.blocks("vision")]
    return [block.mlp.c_fc for block in blocks]
