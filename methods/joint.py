"""Joint training on all tasks at once: the upper bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

from pydantic import Field
from torch import Tensor

from clbench.clip.losses import classification, cross_entropy_among
from clbench.core.data import Batch
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class Joint(Method):
    """Train every parameter of both encoders on the images of all tasks, mixed.

    ``L = CE(s f(x) g(prompt)^T, y)`` among the classes of an image's own task or, with
    ``among="all"``, of all tasks. One run, in the first task, with as many steps as all tasks have
    together, in which each task has its steps' share of the images. Then nothing trains any more,
    and every row of the accuracy matrix tests the same model. No continual learner: it is what one
    could reach that keeps all data.

    Paper: https://arxiv.org/abs/2303.06628 (ZSCL, whose protocol this is)
    """

    name: ClassVar[str] = "joint"
    title: ClassVar[str] = "Joint training"
    family: ClassVar[str] = "Baselines"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.06628"
    needs: ClassVar[frozenset[str]] = frozenset({"all-data"})
    traits: ClassVar[frozenset[str]] = frozenset({"trains-at-once"})

    def __init__(
        self,
        *,
        among: Annotated[
            Literal["task", "all"],
            Field(description="The classes an image is told from: its task's, or all."),
        ] = "task",
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the classes of each image's task, or of all."""
        if batch.tasks is None or self.among == "all":
            return {"classification": classification(self.model, batch, self.label_smoothing)}
        logits = self.model.logits(batch.images, self.model.text_features(batch.prompts))
        allowed = batch.tasks[batch.labels][:, None] == batch.tasks
        loss = cross_entropy_among(logits, batch.labels, allowed, self.label_smoothing)
        return {"classification": loss}
