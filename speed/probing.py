"""Probes: what a row of each costs, beside the test that every row has."""

from __future__ import annotations

from typing import Any

import torch

from clbench import registry
from clbench.clip.model import CLIP
from clbench.config import resolve
from clbench.engine.probing import Probes, Probing
from clbench.engine.process.progress import QuietReporter
from clbench.inputs import make_probes
from speed.embedded import prepared, testing
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
    resolved = resolve("finetune", "mini", overrides={"probes": names}, quick=quick)
    settings, method, sequence = prepared(*resolved, device)
    method.eval()
    probes = make_probes(settings, method.model)
    each = {
        name: Probing(
            Probes({name: probe}, probes.data), settings, sequence, method.model,
            QuietReporter(), print, lambda: None, forgiving=False,
        )
        for name, probe in probes.chosen.items()
    }  # fmt: skip
    count = len(sequence.benchmark)
    tests = [testing(method, settings, sequence, index) for index in range(count)]
    rows: list[dict[str, float]] = []
    for probing in each.values():
        probing.start()
    for _ in range(repeats + 1):
        for probing in each.values():
            probing.before_task(count // 2, method)
        _learn(method.model)
        found = {
            name: probing.measure(count // 2 + 1, method)[name].seconds
            for name, probing in each.items()
        }
        rows.append({"test": seconds(lambda: [test() for test in tests], device), **found})
    measured = {name: [row[name] for row in rows[1:]] for name in rows[0]}
    images = sum(len(sequence.test_set(t)) for t in range(count))
    ratios = {name: ratio(times, measured["test"]) for name, times in measured.items()}
    return {"images": images, "seconds": measured, "ratios": ratios}


@torch.no_grad()
def _learn(model: CLIP) -> None:
    """Move all weights a little."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.add_(CHANGE * parameter.std() * torch.randn_like(parameter))
