"""MagMax: fine-tune in sequence, and merge what every task changed most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.merging import assign, flatten, larger_magnitude, ties
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

SCALES = {"magmax": 0.5, "average": 1.0, "task-arithmetic": 0.3, "ties": 0.55}
"""Factors on the merged delta."""


@final
class MagMax(Method):
    """Test a merged model, and train on from the one that was never merged.

    Task t ends in weights ``theta_t``, from which the next task starts, and gives the delta
    ``tau_t = theta_t - theta_0`` to zero-shot CLIP. The tested model is ``theta_0 + scale m`` with

    - ``magmax``: m holds, entry by entry, the delta of largest absolute value;
    - ``average`` and ``task-arithmetic``: m is the mean, or the sum, of the deltas;
    - ``ties``: of each delta only the `kept` share of largest entries counts, m averages those
      that have the sign of their sum.

    Stored, for the trained weights: ``theta_0``, ``theta_t`` and one running delta; for ``ties``
    the deltas of all tasks.

    Paper: https://arxiv.org/abs/2407.06322
    """

    name: ClassVar[str] = "magmax"
    title: ClassVar[str] = "MagMax"
    family: ClassVar[str] = "Merging"
    paper: ClassVar[str] = "https://arxiv.org/abs/2407.06322"
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})

    initial: Tensor
    """The weights of zero-shot CLIP, ``(d,)``."""
    latest: Tensor
    """The weights that training goes on from, ``(d,)``."""
    deltas: Tensor
    """The running delta ``(1, d)``, or with ``ties`` one per task, ``(T, d)``."""
    count: Tensor
    """How many tasks were learned, ``()`` int64."""

    def __init__(
        self,
        *,
        merge: Annotated[
            Literal["magmax", "average", "task-arithmetic", "ties"],
            Field(description="How deltas become one."),
        ] = "magmax",
        scale: Annotated[
            float | None,
            Field(
                ge=0,
                description="Factor on the merged delta; None: 0.5 for `magmax`, 1 for `average`, "
                "0.3 for `task-arithmetic`, 0.55 for `ties`.",
            ),
        ] = None,
        kept: Annotated[
            float, Field(gt=0, le=1, description="Share of a delta's entries that `ties` keeps.")
        ] = 0.2,
        encoders: Annotated[
            Literal["vision", "both"],
            Field(description="What trains: the image encoder (as published), or both."),
        ] = "vision",
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train one encoder or both, and remember where they start."""
        super().prepare(model)
        trained = model if self.encoders == "both" else model.network.visual
        trained.requires_grad_(True)
        weights = flatten(trained_parameters(self))
        self.register_buffer("initial", weights)
        self.register_buffer("latest", weights.clone())
        self.register_buffer("deltas", weights.new_zeros(0, len(weights)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        let_grow(self, "deltas")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Go back to the weights that were not merged."""
        assign(trained_parameters(self), self.latest)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Add the task's delta, and merge."""
        weights = trained_parameters(self)
        self.latest.copy_(flatten(weights))
        self.count += 1
        self._add(self.latest - self.initial)
        scale = SCALES[self.merge] if self.scale is None else self.scale
        assign(weights, self.initial + scale * self._merged())

    def _add(self, delta: Tensor) -> None:
        """Take up a delta ``(d,)``."""
        if self.merge == "ties" or not len(self.deltas):
            self.deltas = torch.cat([self.deltas, delta[None]])
        elif self.merge == "magmax":
            self.deltas = larger_magnitude(self.deltas, delta[None])
        else:
            self.deltas += delta

    def _merged(self) -> Tensor:
        """The deltas so far made one, ``(d,)``, before its scale."""
        if self.merge == "ties":
            return ties(self.deltas, self.kept)
        return self.deltas[0] / self.count if self.merge == "average" else self.deltas[0]
