"""Continual full fine-tuning: the lower bound that forgets freely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

from torch import Tensor

from clbench.clip.losses import classification
from clbench.core.data import Batch
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Method

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class Finetune(Method):
    """Train every parameter of both encoders on one task after the other.

    ``L = CE(s f(x) g(prompt)^T, y)`` among the classes of the current task. Only the logit scale
    stays fixed. Nothing protects what was learned before, and nothing is stored.

    Paper: https://arxiv.org/abs/2303.06628 (ZSCL, whose protocol and numbers are quoted)
    """

    name: ClassVar[str] = "finetune"
    title: ClassVar[str] = "Fine-tuning"
    family: ClassVar[str] = "Baselines"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.06628"

    def __init__(self, *, label_smoothing: LabelSmoothing = 0.2) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train everything but the logit scale."""
        super().prepare(model)
        model.requires_grad_(True)
        model.network.logit_scale.requires_grad_(False)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}
