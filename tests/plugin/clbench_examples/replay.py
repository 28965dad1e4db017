"""Experience replay: some images of earlier tasks are kept, and seen again in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.nn.utils.rnn import pad_sequence

from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.replay import ReplayMemory
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class Replay(Method):
    """Fine-tune all weights on the current task and on images kept from earlier ones.

    ``L = CE(current batch) + weight CE(replayed batch)``: images of the current task are
    classified among its own classes, replayed ones, cropped at random, among all classes learned
    so far. The memory is filled by reservoir sampling, so every image seen so far is in it with
    the same probability.

    Paper: https://arxiv.org/abs/1902.10486
    """

    name: ClassVar[str] = "replay"
    paper: ClassVar[str] = "https://arxiv.org/abs/1902.10486"
    needs: ClassVar[frozenset[str]] = frozenset({"replay"})

    prompts: Tensor
    """Tokens of the training prompts of all classes learned, ``(K, L)``."""
    ids: Tensor
    """The numbers of these classes in the whole benchmark, ``(K,)``."""

    def __init__(
        self,
        *,
        capacity: Annotated[int, Field(ge=1, description="Images kept at most.")] = 500,
        replayed: Annotated[int, Field(ge=1, description="Images replayed per step.")] = 16,
        weight: Annotated[float, Field(ge=0, description="Weight of the replayed images.")] = 1.0,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale, and make room for what is kept."""
        super().prepare(model)
        model.requires_grad_(True)
        self.draws = Draws()
        self.memory = ReplayMemory(self.capacity)
        self.register_buffer("prompts", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "prompts", "ids")

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy on new images and, from the second task on, on old ones."""
        terms = {"classification": classification(self.model, batch, self.label_smoothing)}
        if len(self.memory):
            old = self.memory.sample(self.replayed, self.draws.generator, augmented=True)
            logits = self.model.logits(old.images, self.model.text_features(self.prompts))
            targets = (old.ids[:, None] == self.ids).to(logits.dtype)
            loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
            terms["replay"] = self.weight * loss
        return terms

    def end_task(self, task: Task, data: TaskData) -> None:
        """Offer the task's images to the memory, in random order, and keep its prompts."""
        ids = torch.tensor(task.classes.ids, device=self.ids.device)
        for batch in data.batches(64, seed=task.index):
            self.memory.offer(batch.images, ids[batch.labels], self.draws.generator)
        prompts = self.model.tokenize(task.classes.training_prompts)
        self.prompts = pad_sequence([*self.prompts, *prompts], batch_first=True)
        self.ids = torch.cat([self.ids, ids])
