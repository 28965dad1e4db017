"""The embedded benchmark as a whole, and how close its parts come to what the machine allows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from clbench.clip.model import REMEMBERED
from clbench.clip.shortcuts.constancy import Memo
from clbench.clip.weights.loading import load_clip
from clbench.config import resolve
from clbench.core.data import Batch, SequenceData
from clbench.core.method import Method
from clbench.core.settings import RunSettings
from clbench.core.task import Task
from clbench.engine.training.allocator import freed_memory_kept
from clbench.inputs import build_sequence
from speed.machine import alternate, matrix_rate, operations
from speed.operators import Operators
from speed.steps import training_step

LOADING = "import clbench.api"
IN_A_ROW = 5
"""Calls that are timed together, as steps follow each other."""


def parts(calls: int, device: torch.device) -> list[dict[str, Any]]:
    """What a run of NuSA-CL consists of: how often, for how long, and two floors of each.

    Floors are the operations of matrix products at the rate of a large one, and the operators of
    PyTorch that the part comes down to, called one after the other: no modules, no graph, no
    optimizer's bookkeeping.
    """
    settings, method, sequence = prepared(*resolve("nusa", "mini"), device)
    rate = matrix_rate(device, torch.float32)
    count = len(sequence.benchmark)
    steps = sum(
        settings.train.steps_for(task.name, len(sequence.train_set(i)))
        for i, task in enumerate(sequence.benchmark.tasks)
    )
    task = sequence.benchmark.tasks[count // 2]
    train = f"step of {settings.train.batch_size} images"
    test = f"test of {len(sequence.test_set(0))} images"
    with freed_memory_kept(device):
        method.train()
        method.begin_task(task, None)  # type: ignore[arg-type] # NuSA-CL looks at weights only
        step = _measure(_training(method, settings, sequence, task), calls, rate, device)
        method.eval()
        method.end_task(task, None)  # type: ignore[arg-type]
        row = _measure(testing(method, settings, sequence, 0), calls, rate, device)
    rows = [
        {"part": train, "count": steps, **step},
        {"part": test, "count": count * (count + 1), **row},
    ]
    (loading,) = alternate([_load_modules], 3, device)
    return [{"part": "loading modules", "count": 1, "seconds": loading}, *rows]


def prepared(
    settings: RunSettings, method_class: type[Method], device: torch.device
) -> tuple[RunSettings, Method, SequenceData]:
    """The settings, their method on its backbone, and the tasks."""
    model = load_clip(settings.backbone).to(device)
    method = method_class(**settings.method.params)
    method.prepare(model)
    return settings, method.to(device), build_sequence(settings, model.image_size)


def _training(
    method: Method, settings: RunSettings, sequence: SequenceData, task: Task
) -> Callable[[], object]:
    """A training step of a task, always on the same images."""
    index = sequence.benchmark.tasks.index(task)
    prompts = method.model.tokenize(task.classes.training_prompts)
    loader = sequence.train_loader(index, batch_size=settings.train.batch_size, steps=1, seed=0)
    images, labels = next(iter(loader))
    batch = Batch(images, labels, prompts).to(method.model.device)
    return training_step(method, lambda: method.loss(batch), settings.train.lr_for(task.name))


def testing(
    method: Method, settings: RunSettings, sequence: SequenceData, index: int
) -> Callable[[], object]:
    """A test of one task by a model that has just been trained; its images are in memory."""
    loader = list(sequence.test_loader(index, batch_size=settings.evaluation.batch_size))
    classes = sequence.benchmark.candidates(index, 0)
    assert classes is not None

    @torch.inference_mode()
    def test() -> Sequence[torch.Tensor]:
        method.model._memo = Memo(REMEMBERED)
        return [method.classify(images, classes) for images, _ in loader]

    return test


def _measure(
    call: Callable[[], object], calls: int, rate: float, device: torch.device
) -> Mapping[str, Any]:
    def several(function: Callable[[], object]) -> Callable[[], object]:
        return lambda: [function() for _ in range(IN_A_ROW)]

    several(call)()
    operators = Operators.of(call)
    times, again = alternate([several(call), several(operators)], calls, device)
    count = operations(call)
    return {
        "seconds": [time / IN_A_ROW for time in times],
        "operators": len(operators),
        "operator_seconds": [time / IN_A_ROW for time in again],
        "operations": count,
        "floor_seconds": count / rate,
    }


def _load_modules() -> None:
    subprocess.run([sys.executable, "-c", LOADING], check=True, capture_output=True)
