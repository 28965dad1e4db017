"""RAIL: ridge regression on frozen features, exact over all tasks, beside zero-shot CLIP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.heads import matches
from clbench.core.data import Batch, TaskData
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 256
"""Images that are encoded, and by which the regression is updated, at once."""
REGULARIZATION: Final = {"primal": 0.1, "dual": 1e-3}


@final
class RAIL(Method):
    """Regress the classes on features of frozen CLIP; trust it where zero-shot CLIP sees them.

    The primal form is ridge regression on random features ``phi(f) = max(P f, 0)``:
    ``W = (Phi^T Phi + lambda I)^-1 Phi^T Y`` over the images of all tasks, kept up to date batch
    by batch without them (Woodbury identity). The dual form is kernel ridge regression with
    ``k(f, f') = exp(-gamma |f - f'|^2)``; it keeps the features and solves
    ``alpha = (K + lambda I)^-1 Y`` anew after every task. Either is what learning all tasks at
    once would give, so nothing is forgotten.

    An image whose most probable candidate under zero-shot CLIP is a learned class is scored with
    ``(1 - fusion) p + fusion r``: p are zero-shot CLIP's probabilities among the candidates and r
    the regression's scores, zero for classes not learned. All other images are scored with p.

    Stored: P, ``(Phi^T Phi + lambda I)^-1`` and W; or the features of all images, and alpha.

    Paper: https://arxiv.org/abs/2406.18868
    """

    name: ClassVar[str] = "rail"
    title: ClassVar[str] = "RAIL"
    family: ClassVar[str] = "Classifiers on features"
    paper: ClassVar[str] = "https://arxiv.org/abs/2406.18868"
    traits: ClassVar[frozenset[str]] = frozenset({"trains-nothing", "compares-candidates"})

    ids: Tensor
    """The numbers of the learned classes in the whole benchmark, ``(K,)``."""

    def __init__(
        self,
        *,
        form: Annotated[
            Literal["primal", "dual"],
            Field(description="Regression on random features, or with a kernel on all images."),
        ] = "primal",
        hidden: Annotated[
            int, Field(ge=1, description="Number of random features; primal form only.")
        ] = 2048,
        gamma: Annotated[
            float, Field(gt=0, description="Sharpness of the kernel; dual form only.")
        ] = 0.1,
        regularization: Annotated[
            Annotated[float, Field(gt=0)] | None,
            Field(
                description="Strength of the ridge; None means 0.1 in the primal and 0.001 in the "
                "dual form, as published."
            ),
        ] = None,
        fusion: Annotated[
            float,
            Field(
                ge=0,
                le=1,
                description="Share of the regression where zero-shot CLIP sees a learned class.",
            ),
        ] = 0.8,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Make room for the regression."""
        super().prepare(model)
        width = model.network.visual.output_dim
        ridge = self.regularization or REGULARIZATION[self.form]
        self.regression: PrimalRidge | DualRidge
        if self.form == "primal":
            projection = random_projection(width, self.hidden, Draws().generator)
            self.regression = PrimalRidge(projection, ridge)
        else:
            self.regression = DualRidge(width, self.gamma, ridge)
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "ids")

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Nothing to minimise."""
        return {}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Learn the task's images."""
        rows = (
            (self.model.encode_image(batch.images), len(self.ids) + batch.labels)
            for batch in data.batches(PASS_BATCH)
        )
        self.regression.learn(rows, len(task.classes))
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Zero-shot CLIP's probabilities, mixed with the regression's scores."""
        features = self.model.encode_image(images)
        zero_shot = self.model.similarities(features, self.model.class_features(candidates))
        same = matches(candidates.ids, self.ids)
        with torch.autocast(features.device.type, enabled=False):
            scores = self.regression.scores(features) @ same.T.double()
        return fused(zero_shot.softmax(dim=1), scores.float(), same.any(dim=1), self.fusion)

    def footprint(self) -> Footprint:
        """The tested model has the regression besides the backbone."""
        added = sum(tensor.numel() for tensor in self.regression.buffers())
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)


@final
class PrimalRidge(nn.Module):
    """Ridge regression on random features, updated without the images of earlier batches.

    Sums are kept in float64: in float32 the many updates of the inverse lose what matters of it.

    Args:
        projection: P, ``(h, D)``.
        regularization: lambda.
    """

    projection: Tensor
    inverse: Tensor
    """R, ``(Phi^T Phi + lambda I)^-1`` over all rows so far, ``(h, h)`` float64."""
    weight: Tensor
    """W, ``(h, K)`` float64."""

    def __init__(self, projection: Tensor, regularization: float) -> None:
        super().__init__()
        hidden = len(projection)
        self.register_buffer("projection", projection)
        self.register_buffer("inverse", torch.eye(hidden, dtype=torch.float64) / regularization)
        self.register_buffer("weight", torch.zeros(hidden, 0, dtype=torch.float64))
        let_grow(self, "weight")

    def learn(self, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> None:
        """Take in the rows of more classes.

        ``R <- R - R Phi^T (I + Phi R Phi^T)^-1 Phi R`` and then, with the new R,
        ``W <- W + R Phi^T (Y - Phi W)``, batch by batch.

        Args:
            batches: rows ``(B, D)`` of unit length, and their columns of W, ``(B,)``.
            classes: columns of W that are new.
        """
        self.weight = F.pad(self.weight, [0, classes])
        for features, labels in batches:
            phi = self._expanded(features)
            along = self.inverse @ phi.T
            inner = torch.eye(len(phi)).to(phi) + phi @ along
            self.inverse -= along @ torch.cholesky_solve(along.T, torch.linalg.cholesky(inner))
            missing = F.one_hot(labels, self.weight.shape[1]).to(phi) - phi @ self.weight
            self.weight += self.inverse @ (phi.T @ missing)

    def scores(self, features: Tensor) -> Tensor:
        """``phi(f) W``, ``(B, K)`` float64."""
        return self._expanded(features) @ self.weight

    def _expanded(self, features: Tensor) -> Tensor:
        return F.linear(features.double(), self.projection.double()).relu()


@final
class DualRidge(nn.Module):
    """Kernel ridge regression on all rows, with ``k(f, f') = exp(-gamma |f - f'|^2)``.

    Args:
        width: D.
        gamma: of the kernel.
        regularization: lambda.
    """

    features: Tensor
    """All rows so far, ``(N, D)``."""
    labels: Tensor
    """Their classes, ``(N,)``."""
    alpha: Tensor
    """``(k(f, f') + lambda I)^-1 Y``, ``(N, K)`` float64."""

    def __init__(self, width: int, gamma: float, regularization: float) -> None:
        super().__init__()
        self.gamma, self.regularization = gamma, regularization
        self.register_buffer("features", torch.zeros(0, width))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("alpha", torch.zeros(0, 0, dtype=torch.float64))
        let_grow(self, "features", "labels", "alpha")

    def learn(self, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> None:
        """Take in the rows of more classes, and solve for all.

        Args:
            batches: rows ``(B, D)`` of unit length, and their columns of alpha, ``(B,)``.
            classes: columns of alpha that are new.
        """
        rows, labels = zip(*batches, strict=True)
        self.features = torch.cat([self.features, *rows])
        self.labels = torch.cat([self.labels, *labels])
        kernel = self._kernel(self.features)
        kernel.diagonal().add_(self.regularization)
        targets = F.one_hot(self.labels, self.alpha.shape[1] + classes).to(kernel)
        self.alpha = torch.cholesky_solve(targets, torch.linalg.cholesky(kernel))

    def scores(self, features: Tensor) -> Tensor:
        """``k(f, stored) alpha``, ``(B, K)`` float64."""
        return self._kernel(features) @ self.alpha

    def _kernel(self, features: Tensor) -> Tensor:
        distances = torch.cdist(features.double(), self.features.double())
        return distances.square_().mul_(-self.gamma).exp_()


def random_projection(width: int, hidden: int, generator: torch.Generator) -> Tensor:
    """Rows of a new linear layer, ``(hidden, width)``, uniform within ``1 / sqrt(width)``."""
    bound = 1 / math.sqrt(width)
    return torch.empty(hidden, width).uniform_(-bound, bound, generator=generator)


def fused(zero_shot: Tensor, scores: Tensor, learned: Tensor, share: float) -> Tensor:
    """Mix scores of learned classes into zero-shot probabilities, where these name such a class.

    Args:
        zero_shot: ``(B, C)`` probabilities.
        scores: ``(B, C)``, zero for classes not learned.
        learned: ``(C,)`` which classes are learned.
        share: of the scores.
    """
    named = learned[zero_shot.argmax(dim=1)]
    return torch.where(named[:, None], (1 - share) * zero_shot + share * scores, zero_shot)
