"""LoRA, merged after each task: low rank without protection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import low_rank_scale
from clbench.clip.draws import Draws, linear_start
from clbench.clip.losses import classification
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Alpha, Dropout, LabelSmoothing, Rank
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class LoRA(Method):
    """Train a fresh low-rank update of the attention weights in each task, then merge it.

    ``y = W x + b + c B A dropout(x)``, ``c = alpha / sqrt(rank)``, on the query, key, value and
    output projections of all blocks of both encoders. A starts Kaiming-uniform, B at zero; both
    are trained. After the task ``W <- W + c B A`` and the next task starts afresh. Nothing is
    stored between tasks.

    The scale divides by the square root of the rank (as rsLoRA does), not by the rank as in the
    original paper: so does the NuSA-CL release, whose LoRA baseline this is.

    Paper: https://arxiv.org/abs/2106.09685
    """

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"

    def __init__(
        self,
        *,
        rank: Rank = 128,
        alpha: Alpha = 2.0,
        dropout: Dropout = 0.25,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside every attention weight."""
        super().prepare(model)
        self.draws = Draws()
        scale = low_rank_scale(self.alpha, self.rank)
        self.adapters = attach(
            model, model.attention_linears(), self.rank, scale, dropout=self.dropout
        )

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Start from a random A and B = 0."""
        for adapter in self.adapters.values():
            down = linear_start(adapter.down.shape, self.draws.generator)
            adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge the updates."""
        for adapter in self.adapters.values():
            adapter.merge()
