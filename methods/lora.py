"""LoRA, merged after each task: low rank without protection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import low_rank_scale
from clbench.clip.draws import Draws, linear_start
from clbench.clip.losses import classification
from clbench.clip.subspaces.directions import thin_svds
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

    ``start="tail"`` lets A start as ``V_r^T / sqrt(3)``, where ``V_r`` are the smallest right
    singular directions of the current weight: rows as long as random ones are on average.

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
        start: Annotated[
            Literal["random", "tail"],
            Field(
                description="Where A starts: `random`, or `tail`, the smallest singular "
                "directions of the weight (an ablation of NuSA-CL, whose updates stay there)."
            ),
        ] = "random",
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
        """Start from B = 0 and an A that is random or in the tail of the weight."""
        for adapter, down in zip(self.adapters.values(), self._starts(), strict=True):
            adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge the updates."""
        for adapter in self.adapters.values():
            adapter.merge()

    def _starts(self) -> list[Tensor]:
        """The A that every update starts from."""
        adapters = list(self.adapters.values())
        if self.start == "random":
            return [linear_start(one.down.shape, self.draws.generator) for one in adapters]
        svds = thin_svds([one.base.weight for one in adapters])
        starts = [torch.zeros_like(one.down) for one in adapters]
        for down, svd in zip(starts, svds, strict=True):
            tail = svd.vh[-self.rank :]
            down[: len(tail)] = tail / math.sqrt(3)
        return starts
