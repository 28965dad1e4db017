"""SplitLoRA: low-rank updates in as many minor directions as are worth what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.adapters.attach import attach
from clbench.clip.draws import Draws, linear_start
from clbench.clip.losses import classification
from clbench.clip.subspaces.covariance import Covariance, observe_task
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.layers.attention import SplitAttention
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 64


@final
class SplitLoRA(Method):
    """Train low-rank updates of keys and values within the minor directions of all earlier inputs.

    Per attention block, C is the mean of ``x x^T`` over the inputs x of all tasks so far, with
    eigenvalues ``s_1 >= .. >= s_d`` and eigenvectors U. Before task t + 1, the p directions that
    are protected minimise ``t sum_{j>p} s_j / sum_j s_j - alpha (d - p) / d`` over p >= 1: what the
    t learned tasks may lose, against what is left to learn with. The layer computes
    ``y = W x + b + B A x``; the rows of A are random directions within ``U_{p+1} .. U_d``, together
    as long as a Kaiming start divided by t + 1, and only B is trained, from zero. The first task
    has the Kaiming start itself. After a task ``W <- W + B A``, and C takes in the task's inputs.

    Stored: a covariance per block of both encoders.

    Paper: https://arxiv.org/abs/2505.22370
    """

    name: ClassVar[str] = "splitlora"
    title: ClassVar[str] = "SplitLoRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.22370"

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(ge=1, description="Rank of the update.")] = 10,
        alpha: Annotated[
            float,
            Field(
                ge=0,
                description="What directions to learn with are worth; 0 protects all used ones.",
            ),
        ] = 20.0,
        as_released: Annotated[
            bool,
            Field(description="Protect two directions where one is best, as the release does."),
        ] = False,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside keys and values, and a covariance beside every attention."""
        super().prepare(model)
        self.draws = Draws()
        self.adapters = attach(
            model,
            model.attention_linears(projections=("k", "v")),
            self.rank,
            scale=1.0,
            trained=("up",),
        )
        blocks = [*model.blocks("text"), *model.blocks("vision")]
        self.attentions = [cast("SplitAttention", block.attn) for block in blocks]
        self.covariances = nn.ModuleList(Covariance() for _ in blocks)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Draw A, after the first task within the minor directions; start with B = 0."""
        for attention, covariance in self._blocks():
            minor = self.minor(covariance, task.index) if task.index else None
            for name in ("k_proj", "v_proj"):
                adapter = getattr(attention, name)
                down = linear_start(adapter.down.shape, self.draws.generator)
                if minor is not None:
                    noise = torch.randn(
                        minor.shape[1], self.rank, generator=self.draws.generator
                    ).to(minor)
                    down = start_within(minor, noise, down.norm().item() / (task.index + 1))
                adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Add the task's inputs to the covariances, and merge the updates."""
        observe_task(self.model, dict(self._blocks()), data, PASS_BATCH)
        for adapter in self.adapters.values():
            adapter.merge()

    def minor(self, covariance: Covariance, learned: int) -> Tensor:
        """The directions ``(d, d - p)`` that may change after so many learned tasks."""
        values, vectors = torch.linalg.eigh(covariance.mean().double())
        protected = protected_directions(values.flip(0).clamp_min(0), learned, self.alpha)
        if self.as_released:
            protected = max(protected, 2)
        minor: Tensor = vectors.flip(1)[:, protected:]
        return minor

    def _blocks(self) -> Iterator[tuple[SplitAttention, Covariance]]:
        """Attention of each block, and the covariance of its inputs."""
        covariances = cast("Sequence[Covariance]", self.covariances)
        return zip(self.attentions, covariances, strict=True)


def protected_directions(spectrum: Tensor, learned: int, alpha: float) -> int:
    """How many leading directions p to protect.

    ``argmin_{p >= 1} t sum_{j>p} s_j / sum_j s_j - alpha (d - p) / d``.

    Args:
        spectrum: ``(d,)`` singular values s in descending order.
        learned: number t of learned tasks.
        alpha: what directions to learn with are worth.

    >>> [protected_directions(torch.tensor([8.0, 1.0, 1.0]), 1, a) for a in (0.2, 0.5)]
    [3, 1]
    """
    s = spectrum.double()
    count = torch.arange(1, len(s) + 1, device=s.device)
    lost = learned * (1 - s.cumsum(0) / s.sum())
    return int((lost - alpha * (len(s) - count) / len(s)).argmin()) + 1


def start_within(minor: Tensor, noise: Tensor, norm: float) -> Tensor:
    """Random rows within a space, ``(rank, d)``, of the given Frobenius norm together.

    Args:
        minor: ``(d, m)`` orthonormal columns that span the space; without any, rows are zero.
        noise: ``(m, rank)`` drawn from the standard normal distribution.
        norm: of the whole matrix.
    """
    rows = (minor @ noise).T
    return rows * (norm / rows.norm()) if len(noise) else rows
