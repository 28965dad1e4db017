"""The interface every continual-learning method implements."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import require_valid, signature_of
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan, trained_parameters

if TYPE_CHECKING:  # the only look upwards: a type, never an import at run time
    from clbench.clip.model import CLIP

Need = Literal["reference-images", "reference-texts", "replay", "all-data"]
"""What a method may use beyond the current task's training data."""
Trait = Literal[
    "trains-nothing",
    "answers-change-at-end",
    "compares-candidates",
    "resumes-through-begin-task",
    "trains-at-once",
]
"""What a method may declare to be excused from a part of the contract (see `Method.traits`)."""
REFERENCE_SOURCES: Final = {"reference": "reference-images", "captions": "reference-texts"}
"""Hyper-parameters that name sources of reference data, and the need that a method declares."""


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

    The constructor's keyword arguments are the hyper-parameters: each is declared once, in the
    signature, with type, bounds, default and meaning (`clbench.core.hyperparameters`), and is
    checked and kept as an attribute of the same name. Everything remembered between tasks is
    module state, so `state_dict()` is the checkpoint.

    The engine calls `prepare` once; then per task `begin_task` and `optimizer`, for every step
    `loss`, backward, `after_backward`, the optimizer's step and `after_step`, and at last
    `end_task`.
    """

    name: ClassVar[str]
    """Registry key, file name, recipe name, and what result files say."""
    title: ClassVar[str] = ""
    """What reports call the method, as papers write it; its name if empty."""
    family: ClassVar[str] = ""
    """The group in which reports list the method."""
    paper: ClassVar[str]
    """URL of the paper."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the method uses beyond the task's own training data: any of `Need`."""
    decides_by_batch: ClassVar[bool] = False
    """Whether an answer may depend on the other images of its test batch. Test batches hold images
    of one task, so such a method learns something of the task for free: tables mark it, and the
    batch size of tests becomes part of a run's identity. A class that does so with some
    hyper-parameters only has a property in its place."""
    traits: ClassVar[frozenset[str]] = frozenset()
    """In which ways the method differs from most, any of `Trait`: it trains nothing by gradients;
    it changes its answers in `end_task`; a class's score depends on the other candidates; its
    state dict fits only after `begin_task` has been called; it is no continual learner but trains
    once, in the first task, on the images of all tasks mixed, for as many steps as they have
    together."""
    disjoint_classes: ClassVar[bool] = False
    """Whether the method keeps something for each class and takes the classes of a task to be new.
    Domain-incremental benchmarks, whose tasks have the same classes, refuse it."""
    transient: ClassVar[frozenset[str]] = frozenset()
    """Attributes that `begin_task` sets anew for every task. They are deleted when a task ends;
    all others that change must be module state."""

    model: CLIP

    if TYPE_CHECKING:  # hyper-parameters are attributes that only the signature declares

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the hyper-parameters and keep them, before the constructor runs.

        Raises:
            ClbenchError: a value breaks a bound or has another type.
        """
        method = super().__new__(cls)
        with suppress(TypeError):  # missing or unknown arguments are the constructor's to refuse
            given = inspect.signature(cls.__init__).bind(method, *args, **kwargs).arguments
            vars(method).update(require_valid(cls.schema(), given))
        return method

    def prepare(self, model: CLIP) -> None:
        """Take over the model: insert adapters, freeze what stays fixed, keep a teacher.

        Overrides call ``super().prepare(model)`` first, which freezes every parameter.
        """
        self.model = model
        model.requires_grad_(False)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Get ready for a task. The optimizer is built afterwards over what requires grad."""

    def optimizer(self, plan: TrainingPlan) -> Optimizer | tuple[Optimizer, LRScheduler]:
        """The optimizer of the task that begins, over parameters that require grad.

        The default is the recipe's. Overrides may give groups of parameters rates of their own,
        ``plan.optimizer([{"params": head, "lr": 10 * plan.lr}, {"params": rest}])``, or return any
        optimizer of PyTorch, alone (the recipe's schedule is applied) or with a schedule that is
        stepped after every optimizer step. The engine drives both, saves and resumes them.
        """
        return plan.optimizer(trained_parameters(self))

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
            candidates: C classes; `ClassTexts.ids` tells which of them were learned.

        Returns:
            Logits ``(B, C)``.
        """
        return self.model.logits(images, self.model.class_features(candidates))

    @property
    def answers_with_model(self) -> bool:
        """Whether the answers are those of `model` alone: `classify` is inherited.

        Overrides that have a `classify` of their own for some hyper-parameters only say when.
        """
        return type(self).classify is Method.classify and "classify" not in vars(self)

    def footprint(self) -> Footprint:
        """What the method costs besides time. Override where data come from elsewhere.

        The engine measures the bytes of the state dict that are not the model's itself, and the
        larger of both numbers counts, so `stored` can be left at 0 here.
        """
        return Footprint(trainable=self.trainable_parameters(), added=0, stored=0, external=0)

    def trainable_parameters(self) -> int:
        """Number of parameters that require grad."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @classmethod
    def schema(cls) -> dict[str, inspect.Parameter]:
        """The hyper-parameters: name to `inspect.Parameter` with annotation and default."""
        return signature_of(cls.__init__)

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
