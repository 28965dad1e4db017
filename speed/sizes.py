"""How much each method trains and keeps on a model of full size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from clbench import config, registry
from clbench.clip.model import CLIP
from clbench.core.method import Method
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.engine.training.footprints import measured, state_bytes
from clbench.testing.driving import begin, end, run_steps
from clbench.testing.toys import ToyData
from speed.machine import release
from speed.setting import Size, build_model, class_texts, random_images

TASKS = 2
"""The second tells what every further task adds."""


def of_methods(
    names: Iterable[str], size: Size, benchmark: str, classes: int, device: torch.device
) -> list[dict[str, Any]]:
    """Trained parameters and stored bytes of each method, with its recipe for a benchmark.

    Args:
        names: of the methods.
        size: the model.
        benchmark: whose settings count.
        classes: of every task, with an image each.
        device: where.
    """
    rows = []
    for name in names:
        settings, cls = config.resolve(name, benchmark)
        model = build_model(size, device)
        backbone = state_bytes(model)
        method = cls(**settings.method.params)
        method.prepare(model)
        method.to(device)
        tasks = [_learned(method, model, *one, backbone) for one in _tasks(model, classes)]
        rows.append({"method": name, "tasks": tasks})
        del model, method
        release()
    return rows


def names() -> list[str]:
    """All methods."""
    return registry.method_names()


def _learned(
    method: Method, model: CLIP, task: Task, data: ToyData, backbone: int
) -> dict[str, Any]:
    """What a task of one step takes and leaves."""
    driven = begin(method, task, data, steps=1)
    trained = method.trainable_parameters()
    run_steps(method, data, driven, range(1))
    end(method, task, data)
    footprint = measured(method, backbone)
    return {"trained": trained, "added": footprint.added, "stored_bytes": footprint.stored}


def _tasks(model: CLIP, classes: int) -> list[tuple[Task, ToyData]]:
    """Tasks with classes of their own, numbered as a benchmark numbers them."""
    texts = class_texts(TASKS * classes)
    specs = tuple(
        Task(f"random{t}", ClassTexts(texts.names[own], texts.prompts[own]))
        for t in range(TASKS)
        for own in [slice(t * classes, (t + 1) * classes)]
    )
    tasks = Benchmark("random", 1, Setting.TASK_GIVEN, "random", specs).tasks
    sets = [
        ToyData(
            random_images(model, classes, task.index),
            torch.arange(classes),
            model.tokenize(task.classes.training_prompts).to(model.device),
            task.classes.training_prompts,
        )
        for task in tasks
    ]
    for data in sets:
        data.others = sets
    return list(zip(tasks, sets, strict=True))
