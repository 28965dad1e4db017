"""Probes: what a row of each costs, beside the test that every row has."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from clbench import registry
from clbench.clip.model import CLIP, REMEMBERED
from clbench.clip.shortcuts.constancy import Memo
from clbench.clip.weights.loading import load_clip
from clbench.config import resolve
from clbench.core.data import SequenceData
from clbench.core.method import Method
from clbench.engine.probing import Probes, Probing
from clbench.engine.process.progress import QuietReporter
from clbench.inputs import build_sequence, make_probes
from speed.machine import ratio, seconds

CHANGE = 0.05
"""Size of the made-up update of a task, in standard deviations of each weight."""


def of_a_row(repeats: int, device: torch.device, *, quick: bool = False) -> dict[str, Any]:
    """Seconds of a row in the middle of the embedded benchmark, test and probes one by one.

    Each probe is alone, so that it pays for all features it looks at, and what it does before the
    task counts. The update of the task is random, as what it is does not matter for the cost.

    Args:
        repeats: rows, after one that warms up.
        device: where.
        quick: few test images.
    """
    names = registry.probe_names()
    settings, method_class = resolve("finetune", "mini", overrides={"probes": names}, quick=quick)
    model = load_clip(settings.backbone).to(device)
    sequence = build_sequence(settings, model.image_size)
    method = method_class(**settings.method.params)
    method.prepare(model)
    method.to(device).eval()
    probes = make_probes(settings, model)
    each = {
        name: Probing(
            Probes({name: probe}, probes.data), settings, sequence, model,
            QuietReporter(), print, lambda: None, forgiving=False,
        )
        for name, probe in probes.chosen.items()
    }  # fmt: skip
    middle = len(sequence.benchmark) // 2
    test = partial(_test, method, sequence, settings.evaluation.batch_size)
    rows: list[dict[str, float]] = []
    for probing in each.values():
        probing.start()
    for _ in range(repeats + 1):
        for probing in each.values():
            probing.before_task(middle, method)
        _learn(model)
        found = {
            name: probing.measure(middle + 1, method)[name].seconds
            for name, probing in each.items()
        }
        rows.append({"test": seconds(test, device), **found})
    measured = {name: [row[name] for row in rows[1:]] for name in rows[0]}
    images = sum(len(sequence.test_set(t)) for t in range(len(sequence.benchmark)))
    ratios = {name: ratio(times, measured["test"]) for name, times in measured.items()}
    return {"images": images, "seconds": measured, "ratios": ratios}


@torch.inference_mode()
def _test(method: Method, sequence: SequenceData, batch_size: int) -> list[torch.Tensor]:
    """Answers to all test images by a model that has just been trained."""
    method.model._memo = Memo(REMEMBERED)
    answers = []
    for index in range(len(sequence.benchmark)):
        classes = sequence.benchmark.candidates(index, 0)
        assert classes is not None
        for images, _ in sequence.test_loader(index, batch_size=batch_size):
            answers.append(method.classify(images, classes).argmax(1).cpu())
    return answers


@torch.no_grad()
def _learn(model: CLIP) -> None:
    """Move all weights a little."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.add_(CHANGE * parameter.std() * torch.randn_like(parameter))
