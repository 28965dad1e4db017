"""MiLoRA: low-rank updates that start from the minor singular components."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import low_rank_scale
from clbench.clip.losses import classification
from clbench.clip.subspaces.directions import minor_components, thin_svds
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Alpha, Dropout, LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class MiLoRA(Method):
    """Train the smallest singular components of the attention weights, then merge them.

    With ``W = U S V^T`` and the last ``rank`` components ``U_r S_r V_r^T`` (the tail),
    ``B = U_r sqrt(S_r / c)`` and ``A = sqrt(S_r / c) V_r^T`` are trained while ``W - c B A``
    stays fixed: ``y = (W - c B_0 A_0) x + b + c B A dropout(x)``, ``c = alpha / sqrt(rank)``.
    Since ``c B_0 A_0`` is the tail, the model is unchanged at the start of a task (but for the
    dropout). After the task the update is merged and the next task decomposes the new weight.
    Nothing is stored between tasks, and nothing keeps the update in the minor directions.

    The comparison published with NuSA-CL skips the subtraction: ``B A`` is the tail, the frozen
    weight is W itself, and every task begins with ``W + c U_r S_r V_r^T``. Set `as_released` to
    get that variant. The original paper scales by ``alpha / rank`` and sets that to 1.

    Paper: https://arxiv.org/abs/2406.09044
    """

    name: ClassVar[str] = "milora"
    title: ClassVar[str] = "MiLoRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2406.09044"

    def __init__(
        self,
        *,
        rank: Annotated[
            int, Field(ge=1, description="Number of singular components that are trained.")
        ] = 128,
        alpha: Alpha = 2.0,
        dropout: Dropout = 0.25,
        as_released: Annotated[
            bool,
            Field(
                description="Leave the tail in the frozen weight, as in the comparison published "
                "with NuSA-CL."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside every attention weight."""
        super().prepare(model)
        scale = low_rank_scale(self.alpha, self.rank)
        self.adapters = attach(
            model, model.attention_linears(), self.rank, scale, dropout=self.dropout
        )

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Move the minor components of each weight into its factors."""
        adapters = list(self.adapters.values())
        svds = thin_svds([adapter.base.weight for adapter in adapters])
        for adapter, svd in zip(adapters, svds, strict=True):
            up, down = minor_components(adapter.base.weight, self.rank, svd)
            if self.as_released:
                adapter.set_factors(down=down, up=up)
            else:
                root = math.sqrt(adapter.scale)
                adapter.set_factors(down=down / root, up=up / root)
                adapter.subtract()

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge the updates."""
        for adapter in self.adapters.values():
            adapter.merge()
