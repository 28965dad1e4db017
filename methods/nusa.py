"""NuSA-CL: updates confined to the null space of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import low_rank_scale
from clbench.clip.draws import Draws
from clbench.clip.losses import classification
from clbench.clip.subspaces.directions import Space, null_factors, thin_svds
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Alpha, Dropout, LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

TRAINED = {"m": ("core",), "mv": ("core", "down"), "muv": ("core", "down", "up")}


def _projections(text: str) -> str:
    if not 0 < len(text) == len(set(text) & set("qkvo")):
        raise ValueError("must be a subset of 'qkvo'")
    return text


@final
class NuSA(Method):
    """Change the attention weights only along their least used singular directions.

    Per task and weight, with the SVD ``W = U S V^T`` of the current weight: the principal rank
    is ``k* = min{k : sum_{i<=k} s_i^2 / sum s_i^2 >= rho}``, and ``U_n``, ``V_n`` are the
    ``min(d - k*, rank)`` smallest singular directions. The layer computes
    ``y = W x + b + c U_n M V_n^T dropout(x)``, ``c = alpha / sqrt(rank)``, and only the square
    matrix M is trained, from zero. After the task ``W <- W + c U_n M V_n^T``. No data, bases or
    feature statistics are stored between tasks.

    "Null space" means low energy of the *weights*: the principal part of W is untouched, but
    nothing says that old inputs have no share in the directions that do change. A merged update
    may enter the principal part of the next task and is then protected, or stay below and be
    overwritten. The factors keep `rank` columns where fewer directions exist (the rest is zero).

    Paper: https://arxiv.org/abs/2510.21175
    """

    name: ClassVar[str] = "nusa"
    title: ClassVar[str] = "NuSA-CL"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2510.21175"

    ranks: Tensor
    """Per weight: principal rank, null rank, directions used; set by `begin_task`."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        rank: Annotated[
            int, Field(ge=1, description="Largest number of directions per weight.")
        ] = 128,
        rho: Annotated[
            float, Field(gt=0, le=1, description="Share of the energy that counts as principal.")
        ] = 0.95,
        alpha: Alpha = 2.0,
        dropout: Dropout = 0.25,
        trainable: Annotated[
            Literal["m", "mv", "muv"],
            Field(
                description="`m` trains M only; `mv` also V_n, `muv` also U_n (ablations that "
                "leave the null space)."
            ),
        ] = "m",
        space: Annotated[
            Space,
            Field(
                description="`tail` uses the smallest singular directions, `top` the largest, "
                "`random` random ones (ablations; all use the same number of directions)."
            ),
        ] = "tail",
        encoders: Annotated[
            Literal["both", "text", "vision"], Field(description="Which encoders are changed.")
        ] = "both",
        layers: Annotated[
            list[int] | None,
            Field(
                description="Which blocks of each encoder are changed, counted from 0; None means "
                "all."
            ),
        ] = None,
        projections: Annotated[
            str,
            AfterValidator(_projections),
            Field(description="Which attention projections are changed, a subset of `qkvo`."),
        ] = "qkvo",
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside every chosen attention weight."""
        super().prepare(model)
        self.draws = Draws()
        chosen = model.attention_linears(self.encoders, self.layers, tuple(self.projections))
        self.adapters = attach(
            model,
            chosen,
            self.rank,
            low_rank_scale(self.alpha, self.rank),
            dropout=self.dropout,
            core=True,
            trained=TRAINED[self.trainable],
        )
        ranks = torch.zeros(len(chosen), 3, dtype=torch.int64)
        self.register_buffer("ranks", ranks, persistent=False)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Find the null space of each current weight and start with M = 0."""
        weights = [adapter.base.weight for adapter in self.adapters.values()]
        svds = thin_svds(weights)
        for i, (adapter, weight) in enumerate(zip(self.adapters.values(), weights, strict=True)):
            u, v, principal, used = null_factors(
                weight, self.rank, self.rho, self.space, self.draws.generator, svds[i]
            )
            adapter.set_factors(up=u, down=v.T)
            self.ranks[i] = torch.tensor([principal, min(weight.shape) - principal, used])

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge the updates."""
        for adapter in self.adapters.values():
            adapter.merge()
