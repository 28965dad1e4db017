"""How cost grows with tasks, classes, rank and the size of the model."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch

from clbench.clip.weights.loading import load_clip
from clbench.core.settings import BackboneSettings
from clbench.core.task import ClassTexts
from clbench.methods.nusa import NuSA
from speed.decompositions import weight_decompositions
from speed.machine import alternate, peak, seconds
from speed.setting import RandomTask, Size, build_model, random_images
from speed.steps import NUSA_LR, NuSASteps, shipped_step

MINI = BackboneSettings(model="mini", weights="clbench.datamodules:mini_clip.safetensors")


def over_tasks(tasks: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Time and state of NuSA-CL, task after task, on the embedded CLIP.

    Before each task a second model learns its first task once more, always from the same weights:
    what both share is the pace of the machine.
    """
    sequence, control = _Learner(device), _Learner(device)
    start = copy.deepcopy(control.model.state_dict())
    first = control.data(0)
    seconds_of_tasks, seconds_of_control, bytes_of_state, peaks = [], [], [], []
    control.learn(first, steps)  # warms up
    for t in range(tasks):
        control.model.load_state_dict(start)
        seconds_of_control.append(seconds(lambda: control.learn(first, steps), device))
        data = sequence.data(t)

        def learn(data: RandomTask = data) -> None:
            seconds_of_tasks.append(seconds(lambda: sequence.learn(data, steps), device))

        peaks.append(peak(learn, device))
        file = io.BytesIO()
        torch.save(sequence.method.state_dict(), file)
        bytes_of_state.append(file.tell())
    return {
        "tasks": tasks,
        "steps": steps,
        "seconds": seconds_of_tasks,
        "control_seconds": seconds_of_control,
        "state_bytes": bytes_of_state,
        "peak_bytes": peaks,
    }


class _Learner:
    """NuSA-CL on the embedded CLIP, and what the engine does with it in a task."""

    def __init__(self, device: torch.device) -> None:
        self.model = load_clip(MINI).to(device)
        self.method = NuSA(rank=64)
        self.method.prepare(self.model)
        self.method.to(device)

    def data(self, task: int) -> RandomTask:
        texts = ClassTexts.from_templates(["arrow", "flag", "digit", "shape"], ["a {}."])
        return RandomTask(self.model, texts, random_images(self.model, 32, task))

    def learn(self, data: RandomTask, steps: int) -> None:
        self.method.train()
        self.method.begin_task(data.task, data)
        batch = next(data.batches(32))
        step = shipped_step(self.method, lambda: self.method.loss(batch), NUSA_LR)
        for _ in range(steps):
            step()
        self.method.eval()
        self.method.zero_grad(set_to_none=True)
        self.method.end_task(data.task, data)


def over_classes(
    steps: NuSASteps, counts: list[int], repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    """A step of NuSA-CL by number of classes."""
    rows = []
    for count in counts:
        step = steps.pair(count).shipped
        highest = peak(step, device)
        (times,) = alternate([step], repeats, device, warmup=0)
        rows.append({"classes": count, "seconds": times, "peak_bytes": highest})
    return rows


def over_ranks(
    size: Size, ranks: list[int], classes: int, repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    """A step of NuSA-CL by rank."""
    rows = []
    for rank in ranks:
        sized = Size(size.model, size.batch, size.reference, rank)
        steps = NuSASteps(sized, device)
        step = steps.pair(classes).shipped
        highest = peak(step, device)
        (times,) = alternate([step], repeats, device, warmup=0)
        trained = steps.method.trainable_parameters()
        rows.append({"rank": rank, "trained": trained, "seconds": times, "peak_bytes": highest})
    return rows


def over_models(models: list[str], repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """The decompositions that NuSA-CL needs at the start of a task, by architecture."""
    return [
        {"model": name, **weight_decompositions(build_model(Size(name), device), repeats)}
        for name in models
    ]
