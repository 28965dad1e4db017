"""L2 regularisation towards the weights that a task starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor

from clbench.clip.losses import classification, squared_distance
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.core.training import trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class L2(Method):
    """Fine-tune all weights, and hold each of them near where the task found it.

    ``L = CE + strength / 2 sum_i (theta_i - theta*_i)^2``, theta* being the weights at the start of
    the task: EWC in which every weight matters alike. Nothing is stored between tasks.

    Paper: https://arxiv.org/abs/1612.00796 (EWC, which compares with it)
    """

    name: ClassVar[str] = "l2"
    title: ClassVar[str] = "L2 to the start"
    family: ClassVar[str] = "Weights held or averaged"
    paper: ClassVar[str] = "https://arxiv.org/abs/1612.00796"
    transient: ClassVar[frozenset[str]] = frozenset({"start"})

    def __init__(
        self,
        *,
        strength: Annotated[
            float, Field(ge=0, description="Weight of half the squared distance.")
        ] = 2.0,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Remember where the task starts."""
        self.start = [weight.detach().clone() for weight in trained_parameters(self)]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification, and the distance to the start."""
        distance = squared_distance(trained_parameters(self), self.start)
        return {
            "classification": classification(self.model, batch, self.label_smoothing),
            "distance": self.strength / 2 * distance,
        }
