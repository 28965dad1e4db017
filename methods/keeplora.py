"""KeepLoRA: low-rank updates that start along the gradient, outside of what must stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from clbench.clip.adapters.attach import attach
from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.losses import classification
from clbench.clip.subspaces.covariance import Covariance, observe_task
from clbench.clip.subspaces.dual_basis import DualBasis
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Dropout, LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import TrainingPlan, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 64
NEGLIGIBLE: Final = 1e-6
"""Share of the largest singular value below which a direction of the gradient is rounding."""
Share = Annotated[float, Field(ge=0, le=1)]


@final
class KeepLoRA(Method):
    """Train low-rank updates within the directions that neither CLIP nor earlier tasks need.

    Every attention weight has a basis P of input directions that must stay: before the first task
    the leading right singular vectors of the weight, later also those that features used. Before
    a task, G is the gradient of the task's mean cross-entropy with respect to ``W^T``; with
    ``G - P P^T G = U S V^T`` the update starts at ``A = U_r`` and ``B = S_r V_r^T``, and is taken
    out of W, so that the model stays what it is. ``y = W x + b + (alpha / rank) B^T A^T x``; B is
    trained, A is not. After the task the update is merged, and P takes in directions until it
    holds a share of the energy of the task's inputs.

    Stored: a basis per weight.

    Paper: https://arxiv.org/abs/2601.19659
    """

    name: ClassVar[str] = "keeplora"
    title: ClassVar[str] = "KeepLoRA"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2601.19659"

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        rank: Annotated[int, Field(ge=1, description="Rank of the update.")] = 16,
        alpha: Annotated[
            float, Field(gt=0, description="Numerator of the update's scale, `alpha / rank`.")
        ] = 1.0,
        dropout: Dropout = 0.0,
        principal_vision: Annotated[
            Share,
            Field(description="Share of the energy of the image encoder's weights that stays."),
        ] = 0.85,
        principal_text: Annotated[
            Share,
            Field(description="Share of the energy of the text encoder's weights that stays."),
        ] = 0.2,
        threshold: Annotated[
            Share, Field(description="Share of the energy of a task's inputs that stays.")
        ] = 0.99,
        features: Annotated[
            Literal["covariance", "averaged"],
            Field(
                description="Inputs of a task: all of them by their covariance, or, as released, "
                "averaged over batches position by position."
            ),
        ] = "covariance",
        one_cycle: Annotated[
            bool,
            Field(
                description="Learning rate and first beta follow one cycle over the task, as "
                "published, instead of the recipe's schedule."
            ),
        ] = False,
        as_released: Annotated[
            bool,
            Field(
                description="What stays of the weights are output directions, used as input "
                "directions; padding counts as text; the start keeps directions of rounding."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an update beside every attention weight and keep the principal directions."""
        super().prepare(model)
        self.adapters = attach(
            model,
            model.attention_linears(),
            self.rank,
            self.alpha / self.rank,
            dropout=self.dropout,
            trained=("up",),
        )
        vision = {id(m) for block in model.blocks("vision") for m in block.modules()}
        self.kept = nn.ModuleList()
        for adapter in self.adapters.values():
            share = self.principal_vision if id(adapter) in vision else self.principal_text
            weight = adapter.base.weight.detach()
            columns = weight if self.as_released else weight.T
            basis = DualBasis(len(columns), dual=False, at_first_below=self.as_released)
            basis.extend(columns, share)
            self.kept.append(basis)
        self.inputs = list(_inputs(model, dict(self._adapted())))

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Start along the part of the gradient that may change, and take the start out of W."""
        for (adapter, kept), gradient in zip(self._adapted(), self._gradients(data), strict=True):
            outside = kept.outside(gradient.T.double())
            u, s, vh = torch.linalg.svd(outside, full_matrices=False)
            count = min(self.rank, len(s))
            if not self.as_released:
                count = min(count, int((s > NEGLIGIBLE * s[0]).sum()))
            down, up = torch.zeros_like(adapter.down), torch.zeros_like(adapter.up)
            down[:count] = u[:, :count].T.to(down)
            up[:, :count] = (s[:count, None] * vh[:count]).T.to(up)
            adapter.set_factors(down=down, up=up)
            adapter.subtract()

    def optimizer(self, plan: TrainingPlan) -> Optimizer | tuple[Optimizer, LRScheduler]:
        """The recipe's, or with its rate and first beta on one cycle."""
        optimizer = plan.optimizer(trained_parameters(self))
        if not self.one_cycle:
            return optimizer
        return optimizer, OneCycleLR(optimizer, plan.lr, total_steps=plan.steps)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge the updates, and keep the directions of the task's inputs."""
        for adapter in self.adapters.values():
            adapter.merge()
        for bases, seen in self._seen(data):
            for basis in bases:
                basis.extend(seen, self.threshold)

    def _adapted(self) -> Iterator[tuple[LowRankLinear, DualBasis]]:
        """Adapters, each with the directions that stay."""
        kept = cast("Iterable[DualBasis]", self.kept)
        return zip(self.adapters.values(), kept, strict=True)

    def _gradients(self, data: TaskData) -> list[Tensor]:
        """Gradient of the mean cross-entropy of the task with respect to each weight."""
        weights = [adapter.base.weight for adapter in self.adapters.values()]
        sums = [torch.zeros_like(weight) for weight in weights]
        images = 0
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            for batch in data.batches(PASS_BATCH):
                loss = classification(self.model, batch, 0.0)
                for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                    total.add_(gradient, alpha=len(batch.labels))
                images += len(batch.labels)
        for weight in weights:
            weight.requires_grad_(False)
        return [total / images for total in sums]

    def _seen(self, data: TaskData) -> Iterator[tuple[list[DualBasis], Tensor]]:
        """What stays of weights that share an input, and what they received, ``(d, n)``."""
        if self.features == "covariance":
            covariances = {module: Covariance() for module, _ in self.inputs}
            observe_task(self.model, covariances, data, PASS_BATCH, padding=self.as_released)
            for module, bases in self.inputs:
                values, vectors = torch.linalg.eigh(covariances[module].take().double())
                yield bases, vectors * values.clamp_min(0).sqrt()
            return
        averages = {module: PositionAverage() for module, _ in self.inputs}
        observe_task(self.model, averages, data, PASS_BATCH, padding=True)
        for module, bases in self.inputs:
            yield bases, averages[module].take()


class PositionAverage:
    """Features of several batches, added up image by image and position by position.

    What KeepLoRA's release takes for the features of a task: the first images of all batches are
    added up, the second ones, and so on. A last batch that is smaller is left out.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._tokens = 0

    def add(self, features: Tensor) -> None:
        """Add features ``(B, L, d)``."""
        columns = features.permute(2, 1, 0).flatten(1)
        if self._sum is None:
            self._sum = torch.zeros_like(columns)
        if columns.shape == self._sum.shape:
            self._sum += columns
            self._tokens += columns.shape[1]

    def take(self) -> Tensor:
        """``(d, L B)``, divided by the number of tokens that were added."""
        assert self._sum is not None
        return self._sum / self._tokens


def _inputs(
    model: CLIP, kept: Mapping[LowRankLinear, DualBasis]
) -> Iterator[tuple[nn.Module, list[DualBasis]]]:
    """Modules that receive an input, with what stays of the weights that it meets."""
    for block in [*model.blocks("text"), *model.blocks("vision")]:
        attention: Any = block.attn
        yield attention, [kept[attention.q_proj], kept[attention.k_proj], kept[attention.v_proj]]
        yield attention.out_proj, [kept[attention.out_proj]]
