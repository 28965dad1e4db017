"""ER and DER++: images of earlier tasks are kept, and seen again in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.nn.utils.rnn import pad_sequence

from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.losses import cross_entropy_among
from clbench.clip.replay import ReplayMemory
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK = 256
"""Images whose logits are remembered at once."""


@final
class ER(Method):
    """Fine-tune all weights on the current task and on images kept from earlier ones.

    ``L = CE(current) + replay CE(replayed)``; with ``variant="der++"`` also
    ``dark ||z - z'||^2``, the mean squared difference between a replayed image's logits z among its
    own task's classes and those z' that the model gave it when that task ended. Images are
    classified among the classes of their own task or, with ``among="learned"``, among those of all
    tasks so far.

    Stored: at most `capacity` images as uint8 with their labels, the prompts of the classes
    learned and, for DER++, the logits.

    Paper: https://arxiv.org/abs/1902.10486 (DER++: https://arxiv.org/abs/2004.07211)
    """

    name: ClassVar[str] = "er"
    title: ClassVar[str] = "Experience replay"
    family: ClassVar[str] = "Replay"
    paper: ClassVar[str] = "https://arxiv.org/abs/1902.10486"
    needs: ClassVar[frozenset[str]] = frozenset({"replay"})
    disjoint_classes: ClassVar[bool] = True

    prompts: Tensor
    """Tokens of the training prompts of all classes begun, ``(K, L)``."""
    ids: Tensor
    """The numbers of these classes in the whole benchmark, ``(K,)``."""
    tasks: Tensor
    """The task of each of them, ``(K,)``."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        capacity: Annotated[int, Field(ge=1, description="Images kept at most.")] = 2000,
        memory: Annotated[
            Literal["reservoir", "balanced"],
            Field(
                description="Which images stay: a fair sample of all seen, or equally many of "
                "every class."
            ),
        ] = "reservoir",
        replayed: Annotated[int, Field(ge=1, description="Images replayed per step.")] = 64,
        crop: Annotated[bool, Field(description="Crop replayed images at random.")] = True,
        among: Annotated[
            Literal["task", "learned"],
            Field(description="The classes an image is told from: its task's, or all so far."),
        ] = "task",
        variant: Annotated[
            Literal["er", "der++"], Field(description="Whether logits are replayed, too.")
        ] = "er",
        replay: Annotated[
            float, Field(ge=0, description="Weight of the replayed images' classification.")
        ] = 1.0,
        dark: Annotated[
            float, Field(ge=0, description="Weight of the distance to remembered logits (DER++).")
        ] = 0.1,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale, and make room for what is kept."""
        super().prepare(model)
        model.requires_grad_(True)
        self.draws = Draws()
        self.kept = ReplayMemory(self.capacity, balanced=self.memory == "balanced")
        self.register_buffer("prompts", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "prompts", "ids", "tasks")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Add the task's classes."""
        prompts = self.model.tokenize(task.classes.training_prompts)
        self.prompts = pad_sequence([*self.prompts, *prompts], batch_first=True)
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])
        self.tasks = torch.cat([self.tasks, self.tasks.new_full((len(prompts),), task.index)])

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy on new images and, from the second task on, what is replayed."""
        old = self.kept.sample(self.replayed, self.draws.generator, augmented=self.crop)
        new_ids = self.ids[-len(batch.prompts) :][batch.labels]
        rows = self._candidates(old.ids)
        texts = self.model.text_features(self.prompts, rows)
        if not len(old.ids):
            logits = self.model.logits(batch.images, texts)
            return {"classification": self._classification(logits, new_ids, rows)}
        new, again = self.model.encode_together(batch.images, old.images)
        logits = self.model.similarities(again, texts)
        terms = {
            "classification": self._classification(
                self.model.similarities(new, texts), new_ids, rows
            ),
            "replay": self.replay * self._classification(logits, old.ids, rows),
        }
        if self.variant == "der++":
            assert old.logits is not None
            own = self._of_own_task(old.ids, rows)
            remembered = old.logits[~old.logits.isnan()]
            terms["dark"] = self.dark * F.mse_loss(logits[own], remembered)
        return terms

    def end_task(self, task: Task, data: TaskData) -> None:
        """Offer the task's images to the memory in random order, and score those that stay."""
        ids = self.ids.new_tensor(task.classes.ids)
        for batch in data.batches(CHUNK, seed=task.index):
            self.kept.offer(batch.images, ids[batch.labels], self.draws.generator)
        if self.variant == "der++":
            self._remember_logits(ids)

    @torch.no_grad()
    def _remember_logits(self, ids: Tensor) -> None:
        """Keep the logits of the task's images in the memory, among the task's classes `ids`."""
        texts = self.model.text_features(self.prompts[-len(ids) :])
        rows = torch.isin(self.kept.ids, ids).nonzero()[:, 0]
        for part in rows.split(CHUNK):
            self.kept.remember(part, self.model.logits(self.kept.images[part], texts))

    def _candidates(self, replayed: Tensor) -> Tensor:
        """The rows of `prompts` that a step needs, given the classes of its replayed images."""
        if self.among == "learned":
            return torch.arange(len(self.ids), device=self.ids.device)
        present = self.tasks[torch.isin(self.ids, replayed)]
        asked = torch.cat([present, self.tasks[-1:]])
        return torch.isin(self.tasks, asked).nonzero()[:, 0]

    def _of_own_task(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Whether each class of `rows` is of the task of an image of class `ids`, ``(B, C)``."""
        own = self.tasks[(ids[:, None] == self.ids).int().argmax(dim=1)]
        return own[:, None] == self.tasks[rows]

    def _classification(self, logits: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy of images of classes `ids`, whose logits stand for the classes `rows`."""
        allowed = torch.ones_like(logits, dtype=torch.bool)
        if self.among == "task":
            allowed = self._of_own_task(ids, rows)
        labels = (ids[:, None] == self.ids[rows]).int().argmax(dim=1)
        return cross_entropy_among(logits, labels, allowed, self.label_smoothing)
