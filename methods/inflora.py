"""InfLoRA: low-rank updates that leave the outputs on earlier tasks' features alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import low_rank_scale
from clbench.clip.draws import Draws, linear_start
from clbench.clip.losses import classification
from clbench.clip.subspaces.covariance import Covariance, observe_task, observing, padded
from clbench.clip.subspaces.dual_basis import DualBasis
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Alpha, Dropout, LabelSmoothing, Rank
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.layers.attention import SplitAttention
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 64
Share = Annotated[float, Field(ge=0, le=1)]


@final
class InfLoRA(Method):
    """Train what low-rank updates of keys and values do along directions that no task has used.

    Per attention block, one basis M of directions that inputs of earlier tasks used. Before a task,
    H is the mean of ``x x^T`` over its inputs x, and the rows of A are the first left singular
    vectors of ``H - M M^T H``, divided by sqrt(3). The layer computes ``y = W x + b + c B A x``,
    ``c = alpha / sqrt(rank)``, and only B is trained, from zero. After the task ``W <- W + c B A``,
    and M takes in directions until it holds a share of the energy of H, taken anew. Where more than
    half of all directions are used, M is exchanged for a basis of the others (DualGPM).

    With the projections ``qkvo``, as in the NuSA-CL paper's comparison, queries and outputs have
    updates, too; their A is random and protects nothing.

    Stored: a basis per block of both encoders.

    Paper: https://arxiv.org/abs/2404.00228
    """

    name: ClassVar[str] = "inflora"
    title: ClassVar[str] = "InfLoRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2404.00228"

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        rank: Rank = 128,
        alpha: Alpha = 2.0,
        dropout: Dropout = 0.25,
        projections: Annotated[
            Literal["kv", "qkvo"], Field(description="Which attention projections are changed.")
        ] = "kv",
        threshold: Annotated[
            Share,
            Field(
                description="Share of the energy of a task's inputs that counts as used after the "
                "first task."
            ),
        ] = 0.95,
        last_threshold: Annotated[
            Share,
            Field(
                description="The same after the last task; between them it grows in equal steps."
            ),
        ] = 1.0,
        memory: Annotated[
            Literal["dual", "used"],
            Field(
                description="`used` keeps a basis of used directions; `dual` one of the unused "
                "where these are fewer."
            ),
        ] = "dual",
        as_released: Annotated[
            bool,
            Field(
                description="Inputs are collected while training, too, padding included, and the "
                "first task counts one direction less, as NuSA-CL's code for it does."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside the chosen weights, and a memory beside every attention."""
        super().prepare(model)
        self.draws = Draws()
        self.adapters = attach(
            model,
            model.attention_linears(projections=tuple(self.projections)),
            self.rank,
            low_rank_scale(self.alpha, self.rank),
            dropout=self.dropout,
            trained=("up",),
        )
        blocks = [*model.blocks("text"), *model.blocks("vision")]
        self.attentions = [cast("SplitAttention", block.attn) for block in blocks]
        self.covariances = nn.ModuleList(Covariance() for _ in blocks)
        self.memories = nn.ModuleList(
            DualBasis(
                attention.embed_dim, dual=self.memory == "dual", at_first_below=self.as_released
            )
            for attention in self.attentions
        )

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Find the directions of the task's inputs that no task has used; start with B = 0."""
        self._observe(data)
        for attention, covariance, memory in self._blocks():
            unused = memory.outside(covariance.take())
            rows = torch.linalg.svd(unused.double())[0].T / math.sqrt(3)
            for projection in self.projections:
                adapter = getattr(
                    attention, "out_proj" if projection == "o" else f"{projection}_proj"
                )
                if projection in "kv":
                    down = torch.zeros_like(adapter.down, device="cpu")
                    down[: len(rows)] = rows[: len(down)]
                else:
                    down = linear_start(adapter.down.shape, self.draws.generator)
                adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        if not self.as_released:
            return {"classification": classification(self.model, batch, self.label_smoothing)}
        whole = replace(batch, prompts=padded(self.model, batch.prompts))
        with observing(self._watched()):
            return {"classification": classification(self.model, whole, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Count the directions of the task's inputs as used, and merge the updates."""
        self._observe(data)
        done = task.index / task.count
        threshold = self.threshold + (self.last_threshold - self.threshold) * done
        for _, covariance, memory in self._blocks():
            memory.extend(covariance.take(), threshold)
        for adapter in self.adapters.values():
            adapter.merge()

    def _blocks(self) -> Iterator[tuple[SplitAttention, Covariance, DualBasis]]:
        """Attention, covariance of its inputs and memory of each block."""
        covariances = cast("Sequence[Covariance]", self.covariances)
        memories = cast("Sequence[DualBasis]", self.memories)
        return zip(self.attentions, covariances, memories, strict=True)

    def _watched(self) -> dict[nn.Module, Covariance]:
        return {attention: covariance for attention, covariance, _ in self._blocks()}

    @torch.no_grad()
    def _observe(self, data: TaskData) -> None:
        """Collect the inputs of all attentions over the task's images and prompts."""
        if not self.as_released:
            observe_task(self.model, self._watched(), data, PASS_BATCH)
            return
        with observing(self._watched()):
            for batch in data.batches(PASS_BATCH):
                self.model.encode_image(batch.images)
                self.model.encode_text(padded(self.model, batch.prompts))
