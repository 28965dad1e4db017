"""DMNSP: the image encoder's adapters are trained where earlier tasks put out little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.adapters.bottleneck import Bottleneck as Adapter
from clbench.clip.adapters.bottleneck import attach_beside_mlps
from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.subspaces.covariance import Covariance, observing
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import Bottleneck, HiddenDropout, LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

SCALE: Final = 0.1
"""Factor on the output of an adapter."""
PASS_BATCH: Final = 128
"""Images that are encoded together; as released, the only ones that are looked at."""
NEW: Final = 1e-4
"""Length of the part outside of what is protected from which on a direction is a new one."""
ALIKE: Final = 0.1
"""Share of the cosines, the largest, whose mean makes a coefficient."""


@final
class DMNSP(Method):
    """Train an adapter per block; those of images only where earlier tasks put out little.

    Beside the MLP of every block of both encoders stands a bottleneck
    ``A(x) = 0.1 (U relu(D x + a) + b)``. After a task, the leading eigenvector of the mean of
    ``A(x) A(x)^T`` over its images joins those that a block of the image encoder protects, Q. From
    the second task on gradients there become ``G_D <- lambda G_D P`` and ``G_U <- lambda P G_U``,
    ``P = I - Q Q^T``, with ``lambda = c exp(-m)``, m being the mean of the largest tenth of the
    cosines of the new task's leading eigenvector with the directions that are left. Adapters of
    the text encoder train freely.

    Stored: the adapters, and the directions that are left of each task.

    Paper: https://iccv.thecvf.com/virtual/2025/poster/2466
    """

    name: ClassVar[str] = "dmnsp"
    title: ClassVar[str] = "DMNSP"
    family: ClassVar[str] = "Projected gradients and steps"
    paper: ClassVar[str] = "https://iccv.thecvf.com/virtual/2025/poster/2466"

    coefficients: Tensor
    """lambda, ``(blocks, blocks)``: of a block, by the block whose directions are projected on."""

    def __init__(
        self,
        *,
        bottleneck: Bottleneck = 64,
        dropout: HiddenDropout = 0.1,
        coefficient: Annotated[
            float, Field(gt=0, description="c, the coefficient of a task unlike earlier ones.")
        ] = 30.0,
        projection: Annotated[
            Literal["gradient", "update"],
            Field(
                description="What is projected: the gradient (as released) or the optimizer's "
                "update."
            ),
        ] = "gradient",
        as_released: Annotated[
            bool,
            Field(
                description="Gradients are projected by all blocks' directions one after the "
                "other, the directions left of several tasks are added up, and cosines have the "
                "signs of the decomposition; one batch stands for a task."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put an adapter beside every MLP, and a memory beside those of the image encoder."""
        super().prepare(model)
        self.draws = Draws()
        attached = attach_beside_mlps(
            model,
            ("text", "vision"),
            lambda _, width: Adapter(width, self.bottleneck, SCALE, self.dropout),
        )
        self.adapters: list[Adapter] = [a for adapters in attached.values() for a in adapters]
        for adapter in self.adapters:
            adapter.start(self.draws.generator)
            adapter.requires_grad_(True)
        self.projected: list[Adapter] = attached["vision"]
        self.spaces = nn.ModuleList(
            OutputSpace(len(adapter.up.weight), stacked=self.as_released)
            for adapter in self.projected
        )
        blocks = len(self.projected)
        self.register_buffer("coefficients", torch.ones(blocks, blocks))
        self._before: list[tuple[Tensor, Tensor]] = []

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Compare what the adapters put out for the task with that for earlier ones."""
        if not self._learned():
            return
        vectors = torch.stack([directions_of(gram)[:, 0] for gram in self._grams(data)])
        left = [space.left() for space in self._spaces()]
        signed = self.as_released
        self.coefficients.copy_(coefficients_of(vectors, left, self.coefficient, signed=signed))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Project the gradients, or remember the weights that the step starts from."""
        if not self._learned():
            return
        pairs = [(adapter.down.weight, adapter.up.weight) for adapter in self.projected]
        if self.projection == "update":
            self._before = [(down.clone(), up.clone()) for down, up in pairs]
            return
        for block, (down, up) in enumerate(pairs):
            assert down.grad is not None
            assert up.grad is not None
            factors = self.coefficients[block]
            projected = self._projected(block, down.grad, up.grad, factors)
            down.grad.copy_(projected[0])
            up.grad.copy_(projected[1])

    @torch.no_grad()
    def after_step(self) -> None:
        """Project the step that the optimizer took."""
        ones = torch.ones_like(self.coefficients[0])
        for block, (down, up) in enumerate(self._before):
            adapter = self.projected[block]
            steps = adapter.down.weight - down, adapter.up.weight - up
            projected = self._projected(block, *steps, ones)
            adapter.down.weight.copy_(down + projected[0])
            adapter.up.weight.copy_(up + projected[1])
        self._before = []

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Protect the leading direction of what the adapters put out for the task's images."""
        for space, gram in zip(self._spaces(), self._grams(data), strict=True):
            space.add(gram)

    def footprint(self) -> Footprint:
        """The adapters are part of the tested model."""
        added = sum(p.numel() for adapter in self.adapters for p in adapter.parameters())
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _spaces(self) -> Sequence[OutputSpace]:
        return cast("Sequence[OutputSpace]", self.spaces)

    def _learned(self) -> int:
        """Number of tasks that are protected."""
        return len(self._spaces()[0].vectors)

    def _projected(
        self, block: int, down: Tensor, up: Tensor, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Changes of D ``(b, d)`` and U ``(d, b)`` of a block, projected and multiplied."""
        blocks = range(len(self.projected)) if self.as_released else [block]
        for other in blocks:
            space = self._spaces()[other]
            down = space.project(down) * factors[other]
            up = space.project(up.T).T * factors[other]
        return down, up

    @torch.no_grad()
    def _grams(self, data: TaskData) -> list[Tensor]:
        """Mean ``A(x) A(x)^T`` of each block of the image encoder over the task's images."""
        grams = [Covariance() for _ in self.projected]
        training = self.training
        self.eval()
        seed = self.draws.seed() if self.as_released else None
        with observing(dict(zip(self.projected, grams, strict=True)), outputs=True):
            for batch in data.batches(PASS_BATCH, seed=seed):
                self.model.encode_image(batch.images)
                if self.as_released:
                    break
        self.train(training)
        return [gram.take() for gram in grams]


@final
class OutputSpace(nn.Module):
    """Directions of what an adapter puts out: those that tasks need, and those that are left.

    Args:
        dim: size d of outputs.
        stacked: add up the projections of the tasks, as released, instead of projecting on what
            is common to all.
    """

    vectors: Tensor
    """Per task all directions, the leading one first, ``(T, d, d)`` with vectors as columns."""
    protected: Tensor
    """Q, an orthonormal basis of the leading ones, ``(d, m)``."""

    def __init__(self, dim: int, *, stacked: bool) -> None:
        super().__init__()
        self.stacked = stacked
        self.register_buffer("vectors", torch.zeros(0, dim, dim))
        self.register_buffer("protected", torch.zeros(dim, 0))
        let_grow(self, "vectors", "protected")

    def add(self, gram: Tensor) -> None:
        """Add a task whose outputs have this mean of ``y y^T``, ``(d, d)``."""
        self.put(directions_of(gram))

    def put(self, vectors: Tensor) -> None:
        """Add a task's directions, ``(d, d)`` orthonormal columns, the leading one first."""
        self.vectors = torch.cat([self.vectors, vectors[None]])
        known = self.protected.double()
        new = vectors[:, 0].double()
        for _ in range(2):  # once more takes off what rounding has left
            new = new - known @ (known.T @ new)
        if new.norm() > NEW:
            column = (new / new.norm()).to(self.protected)
            self.protected = torch.cat([self.protected, column[:, None]], dim=1)

    def left(self) -> Tensor:
        """V, all directions but the leading ones, task after task, ``(d, T (d - 1))``."""
        return torch.cat([vectors[:, 1:] for vectors in self.vectors], dim=1)

    def project(self, rows: Tensor) -> Tensor:
        """Project rows ``(n, d)``: ``rows (I - Q Q^T)``, or stacked ``rows V V^T``.

        ``V V^T`` is ``T I - u_1 u_1^T - ... - u_T u_T^T`` with the leading directions u.
        """
        if not self.stacked:
            return rows - (rows @ self.protected) @ self.protected.T
        leading = self.vectors[:, :, 0].T
        return len(self.vectors) * rows - (rows @ leading) @ leading.T


def directions_of(gram: Tensor) -> Tensor:
    """Orthonormal eigenvectors ``(d, d)`` of a Gram matrix, that of the largest value first."""
    vectors: Tensor = torch.linalg.eigh(gram.double())[1]
    return vectors.flip(1).to(gram.dtype)


def coefficients_of(
    vectors: Tensor, left: Sequence[Tensor], scale: float, *, signed: bool
) -> Tensor:
    """``c exp(-m)``, m being the mean of the largest tenth of cosines with directions.

    Args:
        vectors: ``(J, d)`` leading direction of each block for a new task.
        left: ``(d, n)`` directions of each block that earlier tasks left.
        scale: c.
        signed: take cosines with the arbitrary signs that vectors have, not their sizes.

    Returns:
        ``(J, len(left))``.
    """
    means = []
    for columns in left:
        cosines = vectors @ columns
        cosines = cosines if signed else cosines.abs()
        count = max(1, int(ALIKE * columns.shape[1]))
        means.append(cosines.topk(count, dim=1).values.mean(dim=1))
    return scale * torch.exp(-torch.stack(means, dim=1))
