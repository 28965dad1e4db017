"""OSF: train the smaller singular components of all weights, beside the larger ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from clbench.clip.adapters.singular import SingularLinear
from clbench.clip.losses import classification
from clbench.clip.subspaces.directions import thin_svds
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

Share = Annotated[float, Field(ge=0, le=1)]


@final
class OSF(Method):
    """Train the smaller singular components of every weight, orthogonally to the larger ones.

    Before each task, every attention and MLP weight is decomposed anew, ``W = U S V^T``. The
    leading k components stay as they are; U_l, s_l and V_l of all others are trained, so
    ``W = U_h S_h V_h^T + U_l diag(s_l) V_l^T``, with ``U_l <- (I - U_h U_h^T) U_l`` and
    ``V_l <- (I - V_h V_h^T) V_l`` after every step. So ``U_h^T W`` and ``W V_h`` do not change.
    The share of components that stay grows from task to task in equal steps.

    Nothing is stored between tasks.

    Paper: https://arxiv.org/abs/2504.07097
    """

    name: ClassVar[str] = "osf"
    title: ClassVar[str] = "OSF"
    family: ClassVar[str] = "Low-rank updates and subspaces"
    paper: ClassVar[str] = "https://arxiv.org/abs/2504.07097"

    def __init__(
        self,
        *,
        kept: Annotated[
            Share, Field(description="Share of singular components that stay in the first task.")
        ] = 0.3,
        last_kept: Annotated[
            Share, Field(description="The same in the last task; between them it goes evenly.")
        ] = 0.7,
        projection: Annotated[
            Literal["update", "gradient"],
            Field(
                description="What is projected: what the optimizer has made of the components, or, "
                "as released, their gradients."
            ),
        ] = "update",
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Wrap every linear layer of the blocks of both encoders."""
        super().prepare(model)
        self.layers: dict[str, SingularLinear] = {}
        for name, linear in model.block_linears():
            self.layers[name] = SingularLinear(linear)
            model.replace(name, self.layers[name])

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Decompose the weights, and choose which components stay."""
        progress = task.index / max(task.count - 1, 1)
        share = self.kept + (self.last_kept - self.kept) * progress
        layers = list(self.layers.values())
        # Components of almost equal size are apart in float64 only.
        svds = thin_svds([layer.base.weight for layer in layers], torch.float64)
        for layer, (u, s, vh) in zip(layers, svds, strict=True):
            layer.split(u, s, vh, kept_components(len(s), share))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def after_backward(self) -> None:
        """Project the gradients, if they are what is projected."""
        if self.projection == "gradient":
            for layer in self.layers.values():
                if layer.up.grad is not None and layer.down.grad is not None:
                    layer.confine(layer.up.grad, layer.down.grad)

    def after_step(self) -> None:
        """Project the components, unless their gradients were."""
        if self.projection == "update":
            for layer in self.layers.values():
                layer.confine(layer.up, layer.down)

    def end_task(self, task: Task, data: TaskData) -> None:
        """Put the weights together."""
        for layer in self.layers.values():
            layer.merge()


def kept_components(count: int, share: float) -> int:
    """How many of so many singular components stay; at least one is trained.

    >>> [kept_components(10, share) for share in (0.0, 0.35, 1.0)]
    [0, 3, 9]
    """
    return min(int(share * count), count - 1)
