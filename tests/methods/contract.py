"""Drives a method through tasks in the engine's order, in a few lines and on the CPU."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clbench.core.data import Batch, ReferencePairs, TaskData
from clbench.core.method import Method
from clbench.core.task import Task
from tests.conftest import FakeTaskData

BATCH = 12


class NoReferencePairs(FakeTaskData):
    """A training set that must not be asked for anything else."""

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        raise AssertionError("asked for reference pairs without declaring the need")


def first_batch(data: TaskData, size: int = BATCH) -> Batch:
    """The first images of a training set."""
    return next(data.batches(size))


def optimizer_for(method: Method, lr: float = 1e-3) -> torch.optim.AdamW | None:
    """AdamW over what the method trains now; None if that is nothing."""
    trained = [p for p in method.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=lr, weight_decay=0.01) if trained else None


def run_steps(
    method: Method,
    data: TaskData,
    optimizer: torch.optim.Optimizer | None,
    steps: range,
    *,
    bfloat16: bool = False,
) -> list[float]:
    """Take steps, each with the batch and the dropout that its number decides."""
    losses = []
    batches = list(data.batches(BATCH))
    for step in steps if optimizer is not None else ():
        assert optimizer is not None
        torch.manual_seed(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            terms = method.loss(batches[step % len(batches)])
        total = torch.stack(list(terms.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        method.after_backward()
        optimizer.step()
        method.after_step()
        losses.append(total.item())
    return losses


def begin(method: Method, task: Task, data: TaskData, lr: float = 1e-3) -> torch.optim.AdamW | None:
    """Start a task and build its optimizer."""
    method.train()
    method.begin_task(task, data)
    return optimizer_for(method, lr)


def end(method: Method, task: Task, data: TaskData) -> None:
    """Finish a task."""
    method.eval()
    method.zero_grad(set_to_none=True)
    method.end_task(task, data)


def run_task(
    method: Method, task: Task, data: TaskData, steps: int, lr: float = 1e-3
) -> list[float]:
    """Learn a whole task; the loss of each step."""
    optimizer = begin(method, task, data, lr)
    losses = run_steps(method, data, optimizer, range(steps))
    end(method, task, data)
    return losses


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
