"""The interface every continual-learning method implements."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor, nn

from clbench.core.data import Batch, TaskData
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:  # the only look upwards: a type, never an import at run time
    from clbench.clip.model import CLIP


@dataclass(frozen=True)
class Footprint:
    """What a method costs besides time.

    Attributes:
        trainable: number of parameters the optimizer sees in the current task.
        added: number of parameters the tested model has beyond the backbone's.
        stored: bytes kept from one task to the next besides the model.
        external: bytes of data used that belong to no task (reference images, captions).
    """

    trainable: int
    added: int
    stored: int
    external: int


class Method(nn.Module, ABC):
    """One continual-learning method. Plain PyTorch: it knows no trainer and no data set by name.

    The constructor's keyword arguments are the hyper-parameters: each has a type and a default
    and is kept as an attribute of the same name. Everything remembered between tasks is module
    state, so `state_dict()` is the checkpoint.

    The engine calls `prepare` once; then per task `begin_task`, for every step `loss`, backward,
    `after_backward`, the optimizer's step and `after_step`, and at last `end_task`.
    """

    name: ClassVar[str]
    """Registry key, file name, recipe name and table row."""
    paper: ClassVar[str]
    """URL of the paper."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the method uses beyond the task's own training data, e.g. ``reference-images``."""

    model: CLIP

    def prepare(self, model: CLIP) -> None:
        """Take over the model: insert adapters, freeze what stays fixed, keep a teacher.

        Overrides call ``super().prepare(model)`` first, which freezes every parameter.
        """
        self.model = model
        model.requires_grad_(False)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Get ready for a task. The optimizer is built afterwards over what requires grad."""

    @abstractmethod
    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Named loss terms of one batch; their sum is minimised, each is logged.

        An empty mapping means that the method does not train.
        """

    def after_backward(self) -> None:
        """Change gradients in place, before clipping and the optimizer's step."""

    def after_step(self) -> None:
        """Change weights in place, after the optimizer's step."""

    def end_task(self, task: Task, data: TaskData) -> None:
        """Merge adapters, accumulate statistics."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Score images among candidate classes; the task identity is not given.

        Args:
            images: ``(B, 3, H, W)``, uint8 or normalised float.
            candidates: C classes.

        Returns:
            Logits ``(B, C)``.
        """
        return self.model.logits(images, self.model.class_features(candidates))

    def footprint(self) -> Footprint:
        """What the method costs besides time. Override where adapters or memories are kept."""
        return Footprint(trainable=self.trainable_parameters(), added=0, stored=0, external=0)

    def trainable_parameters(self) -> int:
        """Number of parameters that require grad."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @classmethod
    def schema(cls) -> dict[str, inspect.Parameter]:
        """The hyper-parameters: name to `inspect.Parameter` with annotation and default."""
        parameters = dict(inspect.signature(cls.__init__, eval_str=True).parameters)
        parameters.pop("self", None)
        return {
            name: p
            for name, p in parameters.items()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }

    def hyperparameters(self) -> dict[str, Any]:
        """The values this instance was built with."""
        return {name: getattr(self, name) for name in self.schema()}

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.hyperparameters().items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pragma: no cover - guards misuse
        raise TypeError(f"call {type(self).__name__}.loss or .classify, not the method itself")


def method_name(method: Method | type[Method]) -> str:
    """The registry key of a method class or instance."""
    cls = method if isinstance(method, type) else type(method)
    return cast(str, getattr(cls, "name", cls.__name__.lower()))
