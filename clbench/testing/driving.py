"""Drives a method through tasks in the engine's order, in a few lines."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clbench.core.data import Batch, TaskData
from clbench.core.method import Method
from clbench.core.settings import TrainSettings
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan
from clbench.engine.training.attributes import drop_transient
from clbench.engine.training.modules import planned

BATCH = 12
RATE = 1e-3
SETTINGS = TrainSettings(weight_decay=0.01, warmup=0, schedule="constant")

Optimization = tuple[Optimizer, LRScheduler]


def first_batch(data: TaskData, size: int = BATCH) -> Batch:
    """The first images of a training set."""
    return next(data.batches(size))


def begin(
    method: Method, task: Task, data: TaskData, steps: int = 30, rate: float = RATE
) -> Optimization | None:
    """Start a task and build its optimizer and schedule; None if nothing trains."""
    method.train()
    method.begin_task(task, data)
    return optimization(method, steps, rate)


def optimization(method: Method, steps: int = 30, rate: float = RATE) -> Optimization | None:
    """Optimizer and schedule of what the method trains now; None if that is nothing."""
    if not method.trainable_parameters():
        return None
    return planned(method, TrainingPlan(steps, rate, SETTINGS))


def run_steps(
    method: Method,
    data: TaskData,
    driven: Optimization | None,
    steps: range,
    *,
    batch_size: int = BATCH,
    bfloat16: bool = False,
    seen: Callable[[Mapping[str, Tensor]], None] = lambda _: None,
) -> list[float]:
    """Take steps, each with the batch and the dropout that its number decides.

    Returns:
        The loss of each step; `seen` is given its terms.
    """
    losses: list[float] = []
    if driven is None:
        return losses
    optimizer, schedule = driven
    batches = list(data.batches(batch_size))
    kind = method.model.device.type
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=bfloat16):
            terms = method.loss(batches[step % len(batches)])
        seen({name: term.detach() for name, term in terms.items()})
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
        schedule.step()
        losses.append(total.item())
    return losses


def end(method: Method, task: Task, data: TaskData) -> None:
    """Finish a task."""
    method.eval()
    method.zero_grad(set_to_none=True)
    method.end_task(task, data)
    drop_transient(method)


def run_task(
    method: Method, task: Task, data: TaskData, steps: int, rate: float = RATE
) -> list[float]:
    """Learn a whole task; the loss of each step."""
    driven = begin(method, task, data, steps, rate)
    losses = run_steps(method, data, driven, range(steps))
    end(method, task, data)
    return losses


@torch.no_grad()
def scores(method: Method, images: Tensor, candidates: ClassTexts) -> Tensor:
    """Logits, on the CPU."""
    return method.classify(images.to(method.model.device), candidates).float().cpu()


def saved(state: Any) -> Any:
    """What comes back from a checkpoint file that may hold no code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def trained_names(method: Method) -> set[str]:
    """Names of the parameters that require grad."""
    return {name for name, p in method.named_parameters() if p.requires_grad}


def differences(left: Any, right: Any, path: str = "state") -> Iterator[str]:
    """Where two states differ by a single bit."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        yield from (f"{path}.{key} in one only" for key in left.keys() ^ right.keys())
        for key in left.keys() & right.keys():
            yield from differences(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.dtype != right.dtype or not torch.equal(left, right):
            yield path
    elif left != right:
        yield path
