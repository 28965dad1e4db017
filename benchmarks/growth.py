"""How cost grows with tasks, classes, rank and the size of the model."""

from __future__ import annotations

import io
import time
from typing import Any

import torch

from benchmarks.decompositions import weight_decompositions
from benchmarks.machine import alternate, peak
from benchmarks.setting import RandomTask, Size, build_model, random_images
from benchmarks.steps import NUSA_LR, NuSASteps
from clbench.clip.loading import load_clip
from clbench.core.settings import BackboneSettings
from clbench.core.task import ClassTexts
from clbench.methods.nusa import NuSA

MINI = BackboneSettings(model="mini", weights="clbench.datamodules:mini_clip.safetensors")


def over_tasks(tasks: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Time and state of NuSA-CL, task after task, on the embedded CLIP."""
    model = load_clip(MINI).to(device)
    method = NuSA(rank=64)
    method.prepare(model)
    method.to(device)
    texts = ClassTexts.from_templates(["arrow", "flag", "digit", "shape"], ["a {}."])
    seconds, bytes_of_state, peaks = [], [], []
    for t in range(tasks):
        data = RandomTask(model, texts, random_images(model, 32, t))

        def learn(data: RandomTask = data) -> None:
            method.train()
            method.begin_task(data.task, data)
            trained = [p for p in method.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=NUSA_LR, fused=True)
            batch = next(data.batches(32))
            for _ in range(steps):
                optimizer.zero_grad()
                torch.stack([*method.loss(batch).values()]).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            method.eval()
            method.zero_grad(set_to_none=True)
            method.end_task(data.task, data)

        started = time.perf_counter()
        peaks.append(peak(learn, device))
        seconds.append(time.perf_counter() - started)
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        bytes_of_state.append(file.tell())
    return {
        "tasks": tasks,
        "steps": steps,
        "seconds": seconds,
        "state_bytes": bytes_of_state,
        "peak_bytes": peaks,
    }


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
