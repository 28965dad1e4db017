"""How far updates of GNSP leave the null space of earlier features: measured, not read off runs."""

from __future__ import annotations

import copy
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from clbench import config
from clbench.core.settings import RunSettings
from clbench.core.training import TrainingPlan
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.sources import source_hash
from clbench.engine.training.method_data import MethodData
from clbench.engine.training.modules import planned
from clbench.inputs import load_inputs
from clbench.methods.gnsp import GNSP
from clbench.studies.study import source_digest
from clbench.testing.driving import end, run_steps

STEPS: Final = (1, 10, 100)
"""Steps of the second task after which the update is looked at."""
WAYS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "none": ("none", {}),
    "gradient": ("gradient", {}),
    "gradient without decay": ("gradient", {"weight_decay": 0.0}),
    "gradient under SGD": ("gradient", {"optimizer": "sgd", "weight_decay": 0.0, "lr": 0.1}),
    "update": ("update", {}),
}
"""How the second task is trained: name to projection, and changed settings of the training."""

Found = dict[str, dict[str, dict[str, float]]]


def basis(overrides: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    """What `measure_leaving` depends on: settings, sources, weights and images."""
    settings = _settings(overrides, quick)
    model, sequence = load_inputs(settings)
    inputs = Inputs.of(model, sequence)
    return {
        "settings": settings.fingerprint(),
        "method": source_hash(GNSP),
        "source": source_digest(sys.modules[__name__]),
        "weights": inputs.weights,
        "images": dict(inputs.splits),
    }


def measure_leaving(overrides: Mapping[str, Any], *, quick: bool) -> Found:
    """Train two tasks of `mini` with GNSP, the second in several ways, and look at its update.

    Args:
        overrides: settings by dotted key.
        quick: with the few steps of a smoke run.

    Returns:
        For each of `WAYS` and number of steps, as means over the weights: ``outside``, the share of
        the update's energy in directions that carry the features of the first task, which the
        projection is to keep free, and ``change``, that of the outputs for these features,
        ``||dW X|| / ||W X||``.
    """
    settings = _settings(overrides, quick)
    torch.manual_seed(settings.seed)
    model, sequence = load_inputs(settings)
    method = GNSP(**settings.method.params)
    method.prepare(model)
    tasks = sequence.benchmark.tasks
    data = [MethodData(sequence, t, model.tokenize, "none", method.needs) for t in (0, 1)]
    batch = settings.train.batch_size
    counts = [
        settings.train.steps_for(task.name, len(images))
        for task, images in zip(tasks, data, strict=True)
    ]

    method.train()
    method.begin_task(tasks[0], data[0])
    plan = TrainingPlan(counts[0], settings.train.lr_for(tasks[0].name), settings.train)
    run_steps(method, data[0], planned(method, plan), range(counts[0]), batch_size=batch)
    end(method, tasks[0], data[0])

    found: Found = {}
    for name, (projection, changes) in WAYS.items():
        learner: Any = copy.deepcopy(method)
        learner.projection = projection
        learner.train()
        learner.begin_task(tasks[1], data[1])
        before = [weight.detach().clone() for weight in learner.weights]
        train = settings.train.model_copy(update=changes)
        plan = TrainingPlan(counts[1], train.lr_for(tasks[1].name), train)
        driven = planned(learner, plan)
        done, found[name] = 0, {}
        for steps in dict.fromkeys(min(steps, counts[1]) for steps in STEPS):
            run_steps(learner, data[1], driven, range(done, steps), batch_size=batch)
            found[name][str(steps)] = _left(learner, before)
            done = steps
    return found


def _settings(overrides: Mapping[str, Any], quick: bool) -> RunSettings:
    given = {"first_tasks": 2, "method.projection": "gradient", **overrides}
    return config.resolve("gnsp", "mini", overrides=given, quick=quick)[0]


def _left(method: GNSP, before: Sequence[Tensor]) -> dict[str, float]:
    """Where the change of the weights lies, see `measure_leaving`."""
    outside, change = [], []
    for i, (memory, old, new) in enumerate(
        zip(method.memories, before, method.weights, strict=True)
    ):
        # The output projection is stored inputs x outputs.
        transposed = i == len(before) - 1
        old, new = ((w.T if transposed else w).detach().double() for w in (old, new))
        kept, gram = memory.split().kept.double(), memory.gram.double()
        update = new - old
        outside.append(float((update @ kept).square().sum() / update.square().sum()))
        moved, whole = (float(((w @ gram) * w).sum()) for w in (update, old))
        change.append(math.sqrt(max(moved, 0.0) / whole))
    return {"outside": statistics.fmean(outside), "change": statistics.fmean(change)}
