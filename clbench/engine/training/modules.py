"""The two Lightning modules: one trains a method on a task, one tests it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clbench.core.data import Batch
from clbench.core.errors import ClbenchError, DivergedError
from clbench.core.method import Method, method_name
from clbench.core.task import Benchmark, ClassTexts
from clbench.core.training import TrainingPlan
from clbench.engine.training.contract import finite_scores

Classify = Callable[[Tensor, ClassTexts], Tensor]


class TrainingModule(pl.LightningModule):
    """Trains a method on one task, or on all at once: its loss, its hooks, its optimizer.

    Args:
        method: the prepared method; what requires grad is optimised.
        prompts: ``(C, L)`` tokenised training prompts of the task.
        plan: steps and settings of the optimisation.
        task: name of the task, for messages.
        tasks: ``(C,)`` the task of each class, if there are several.
        weight: factor of the loss, for processes with shares of different sizes.
    """

    prompts: Tensor
    tasks: Tensor | None

    def __init__(
        self,
        method: Method,
        prompts: Tensor,
        plan: TrainingPlan,
        task: str,
        tasks: Tensor | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("prompts", prompts, persistent=False)
        self.register_buffer("tasks", tasks, persistent=False)
        self.plan = plan
        self.task = task
        self.weight = weight

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict[str, Tensor] | None:
        images, labels = batch
        terms = self.method.loss(Batch(images, labels, self.prompts, self.tasks))
        if not terms:
            return None
        if self.weight != 1:
            terms = {name: term * self.weight for name, term in terms.items()}
        total = torch.stack([*terms.values()]).sum()
        if not total.requires_grad:
            raise ClbenchError(
                f"the loss of method {method_name(self.method)!r} depends on nothing that requires "
                f"grad while training on {self.task}"
            )
        return {"loss": total, **{name: term.detach() for name, term in terms.items()}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.method.after_backward()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # Fused optimizers do not count their changes, by which what depends on weights is renewed.
        increment_version([p for group in optimizer.param_groups for p in group["params"]])
        self.method.after_step()

    def configure_optimizers(self) -> Any:
        optimizer, schedule = planned(self.method, self.plan)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def planned(method: Method, plan: TrainingPlan) -> tuple[Optimizer, LRScheduler]:
    """A method's optimizer for a task, and its schedule or else the recipe's.

    Raises:
        ClbenchError: the optimizer does not hold exactly the parameters that require grad.
    """
    answer = method.optimizer(plan)
    optimizer, schedule = answer if isinstance(answer, tuple) else (answer, None)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = {id(p): name for name, p in method.named_parameters() if p.requires_grad}
    if forgotten := sorted(names[i] for i in names.keys() - held):
        raise ClbenchError(
            f"the optimizer of method {method_name(method)!r} lacks {len(forgotten)} parameters "
            f"that require grad (first: {forgotten[0]}): give it all of them, or freeze the others"
        )
    if held - names.keys():
        raise ClbenchError(
            f"the optimizer of method {method_name(method)!r} holds parameters that do not require "
            "grad or are not part of the method: they would not be saved"
        )
    return optimizer, plan.schedule(optimizer) if schedule is None else schedule


class EvaluationModule(pl.LightningModule):
    """Tests a classifier on several tasks, one data loader per group of tasks.

    Most groups are one task. A group of several comes as one batch, with the place of its task in
    the group beside each image and labels that count through the classes of the group; an image is
    scored among those of its own task all the same.

    Args:
        scorer: module that holds the weights, so that it is moved to the device.
        classify: scores images among candidates.
        benchmark: decides candidates and label offsets.
        learned: number of tasks learned so far.
        groups: indices of the tested tasks, in the order of the data loaders.
    """

    def __init__(
        self,
        scorer: nn.Module,
        classify: Classify,
        benchmark: Benchmark,
        learned: int,
        groups: list[list[int]],
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.classify = classify
        self.groups = groups
        self._candidates = [_candidates(benchmark, learned, group) for group in groups]
        self._offsets = [
            benchmark.label_offset(group[0]) if len(group) == 1 else 0 for group in groups
        ]
        self._sound: list[Tensor] = []

    def test_step(
        self, batch: tuple[Tensor, ...], batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Which images are classified correctly: ``(B,)`` bool."""
        images, labels, *places = batch
        candidates = self._candidates[dataloader_idx]
        logits = self.classify(images, sum(candidates[1:], candidates[0]))
        self._sound.append(finite_scores(logits))
        if places:
            sizes = torch.tensor([len(classes) for classes in candidates], device=logits.device)
            owners = torch.arange(len(sizes), device=logits.device).repeat_interleave(sizes)
            logits = logits.masked_fill(places[0][:, None] != owners, -torch.inf)
        predicted = logits.argmax(dim=-1)
        return predicted == labels + self._offsets[dataloader_idx]

    def on_test_end(self) -> None:
        """Read once, at the end, whether all logits were finite.

        Raises:
            ClbenchError: some were not.
        """
        if not torch.stack(self._sound).all():
            if not isinstance(self.scorer, Method):
                raise ClbenchError("the backbone's logits are not finite: its weights are damaged")
            raise DivergedError(
                f"method {method_name(self.scorer)!r} returned logits that are not finite in a test"
            )


def _candidates(benchmark: Benchmark, learned: int, group: list[int]) -> list[ClassTexts]:
    """The candidates of each task of a group."""
    found = []
    for task in group:
        candidates = benchmark.candidates(learned, task)
        if candidates is None:
            raise ValueError(f"task {task} has no candidates yet")
        found.append(candidates)
    return found
