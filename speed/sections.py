"""The parts of the benchmark: each measures one thing and returns what goes into its file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from speed import ablations, decompositions, embedded, evaluation, growth, keep, probing
from speed.joined import joined_projections
from speed.machine import (
    alone,
    alternate,
    available_memory,
    has_bfloat16_units,
    matrix_rate,
    operations,
    peak,
    ratio,
    release,
)
from speed.setting import Size, build_model
from speed.steps import GNSPSteps, NuSASteps, Pair, Step, largest_differences

BF16 = torch.bfloat16
STEPS_OF_PEAK = 2
JOINED_REPEATS = 10
CALLS_OF_PARTS = 20
Formulation = Literal["plain", "shipped"]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: where.
        size: of models and batches.
        repeats: calls per formulation, after one that warms up.
        classes: numbers of classes of a training step.
        equality_steps: steps over which both formulations are compared.
        images: images per test.
        tasks: numbers of tasks in the benchmark of growth.
        ranks: ranks in it.
        projections: tokens, width and rank of the layers that share an input: images of
            the embedded model, prompts and images of ViT-B/16.
        rate_side: size of the matrix product that the achieved rate is compared with.
        models: architectures in the benchmark of growth.
    """

    device: torch.device
    size: Size = field(default_factory=Size)
    repeats: int = 3
    classes: tuple[int, ...] = (100, 200, 397)
    equality_steps: int = 20
    images: int = 128
    tasks: tuple[int, ...] = (11, 50)
    growing_classes: tuple[int, ...] = (10, 100, 397, 1000)
    ranks: tuple[int, ...] = (8, 32, 128, 256)
    projections: tuple[tuple[int, int, int], ...] = (
        (544, 128, 64),
        (1000, 512, 128),
        (3152, 768, 128),
    )
    rate_side: int = 3072
    models: tuple[str, ...] = ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu")


def nusa(plan: Plan) -> dict[str, Any]:
    """A training step of NuSA-CL."""
    steps = NuSASteps(plan.size, plan.device)
    rows: list[dict[str, Any]] = []
    for classes in plan.classes:
        # Memory grows by less than in proportion to the classes.
        bound = rows[0]["plain_peak_bytes"] * classes / rows[0]["classes"] if rows else 0
        peak_of = partial(alone, nusa_peak, plan, classes)
        row = {"classes": classes, **_compare(steps.pair(classes), plan, peak_of, bound)}
        row["rate"] = matrix_rate(plan.device, torch.float32, plan.rate_side)
        if not rows:
            row["bf16_seconds"] = _bf16_times(lambda: steps.pair(plan.classes[0], BF16), plan)
        rows.append(row)
        release()
    return {"batch": plan.size.batch, "rank": plan.size.rank, "rows": rows}


def gains(plan: Plan) -> dict[str, Any]:
    """What each shortcut gains alone."""
    steps = NuSASteps(plan.size, plan.device)
    rows = ablations.gains(steps, plan.classes[0], plan.repeats)
    return {"classes": plan.classes[0], "rows": rows}


def kept(plan: Plan) -> dict[str, Any]:
    """Each piece of cleverness against its plain counterpart."""
    classes = plan.classes[0]
    methods = [
        keep.compare(name, plan.size, classes, plan.repeats, plan.device) for name in keep.METHODS
    ]
    size = plan.size
    return {"classes": classes, "batch": size.batch, "rank": size.rank, "methods": methods}


def joined(plan: Plan) -> dict[str, Any]:
    """Query, key and value of one input, three ways."""
    measure = partial(joined_projections, repeats=JOINED_REPEATS * plan.repeats, device=plan.device)
    return {"rows": [measure(*shape) for shape in plan.projections]}


def gnsp(plan: Plan) -> dict[str, Any]:
    """A training step of GNSP from its second task on."""
    steps = GNSPSteps(plan.size, plan.device, plan.classes[0])
    row = _compare(steps.pair(), plan, partial(alone, gnsp_peak, plan))
    row["rate"] = matrix_rate(plan.device, torch.float32, plan.rate_side)
    release()
    row["bf16_seconds"] = _bf16_times(lambda: steps.pair(BF16), plan)
    return {
        "batch": plan.size.batch,
        "reference": plan.size.reference,
        "classes": plan.classes[0],
        **row,
    }


def grams(plan: Plan) -> dict[str, Any]:
    """GNSP's null spaces."""
    steps = GNSPSteps(plan.size, plan.device, 10)
    return decompositions.gram_decompositions(steps.grams, plan.repeats)


def weights(plan: Plan) -> dict[str, Any]:
    """SVDs at the start of NuSA-CL's tasks."""
    return decompositions.weight_decompositions(build_model(plan.size, plan.device), plan.repeats)


def equality(plan: Plan) -> dict[str, Any]:
    """Both formulations trained side by side, without dropout, in float32."""
    small = Size(plan.size.model, 4, 8, plan.size.rank)
    nusa_pair = NuSASteps(small, plan.device, dropout=0.0).pair(10)
    result = {"nusa": largest_differences(nusa_pair, plan.equality_steps)}
    del nusa_pair
    release()
    gnsp_pair = GNSPSteps(small, plan.device, 10, pool=16).pair()
    return {**result, "gnsp": largest_differences(gnsp_pair, plan.equality_steps)}


def scoring(plan: Plan) -> dict[str, Any]:
    """Testing."""
    return evaluation.scoring(plan.size, plan.device, plan.classes[0], plan.images, plan.repeats)


def reading(plan: Plan) -> dict[str, Any]:
    """Reading test images."""
    return evaluation.reading(4 * plan.images, plan.repeats)


def command_line(plan: Plan) -> dict[str, Any]:
    """`clbench --help`, in processes of its own."""
    (times,) = alternate([lambda: _clbench("--help")], 2 * plan.repeats, plan.device)
    return {"seconds": times}


def mini(plan: Plan) -> dict[str, Any]:
    """The whole embedded benchmark, from the command line to the last table, and its parts."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            _clbench("run", "--method", "nusa", "--benchmark", "mini", "-q", "--runs-dir", folder)

    (times,) = alternate([run], plan.repeats, plan.device, warmup=0)
    return {"seconds": times, "parts": embedded.parts(CALLS_OF_PARTS * plan.repeats, plan.device)}


def probes(plan: Plan) -> dict[str, Any]:
    """What probes cost, row by row of the embedded benchmark."""
    return probing.of_a_row(plan.repeats, plan.device)


def tasks(plan: Plan) -> dict[str, Any]:
    """How cost grows with tasks."""
    return {"rows": [growth.over_tasks(count, 3, plan.device) for count in plan.tasks]}


def growing(plan: Plan) -> dict[str, Any]:
    """How cost grows with classes, rank and the size of the model."""
    device = plan.device
    steps = NuSASteps(plan.size, device)
    classes = growth.over_classes(steps, list(plan.growing_classes), plan.repeats, device)
    del steps
    release()
    ranks = growth.over_ranks(plan.size, list(plan.ranks), plan.classes[0], plan.repeats, device)
    models = growth.over_models(list(plan.models), 1, device)
    return {"classes": classes, "ranks": ranks, "models": models}


SECTIONS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "equality": equality,
    "nusa": nusa,
    "gnsp": gnsp,
    "gains": gains,
    "keep": kept,
    "joined": joined,
    "grams": grams,
    "weights": weights,
    "scoring": scoring,
    "reading": reading,
    "help": command_line,
    "mini": mini,
    "probes": probes,
    "tasks": tasks,
    "growth": growing,
}


def nusa_peak(plan: Plan, classes: int, formulation: Formulation) -> int:
    """Peak memory of NuSA-CL's steps in one formulation."""
    return _peak(NuSASteps(plan.size, plan.device).pair(classes), plan, formulation)


def gnsp_peak(plan: Plan, formulation: Formulation) -> int:
    """Peak memory of GNSP's steps in one formulation."""
    steps = GNSPSteps(plan.size, plan.device, plan.classes[0])
    return _peak(steps.pair(), plan, formulation)


def _peak(pair: Pair, plan: Plan, formulation: Formulation) -> int:
    step: Step = getattr(pair, formulation)
    return peak(lambda: [step() for _ in range(STEPS_OF_PEAK)], plan.device)


def _compare(
    pair: Pair, plan: Plan, peak_of: Callable[[Formulation], int], plain_bound: float = 0
) -> dict[str, Any]:
    """Times, peaks and operations of a step in both formulations, the plain one if it fits."""
    result: dict[str, Any] = {"shipped_peak_bytes": peak_of("shipped")}
    result["shipped_operations"] = operations(pair.shipped)
    if plain_bound > available_memory(plan.device):
        return {**result, "shipped_seconds": _times(pair.shipped, plan), "plain_seconds": None}
    result["plain_peak_bytes"] = peak_of("plain")
    result["plain_operations"] = operations(pair.plain)
    slow, fast = alternate([pair.plain, pair.shipped], plan.repeats, plan.device, warmup=0)
    return {**result, "plain_seconds": slow, "shipped_seconds": fast, "ratio": ratio(slow, fast)}


def _times(step: Step, plan: Plan) -> list[float]:
    return alternate([step], plan.repeats, plan.device)[0]


def _bf16_times(pair: Callable[[], Pair], plan: Plan) -> list[float] | None:
    """Times in bfloat16; None on CPUs that only emulate it, where a step takes minutes."""
    return _times(pair().shipped, plan) if has_bfloat16_units(plan.device) else None


def _clbench(*arguments: str) -> None:
    """Run the command beside this interpreter."""
    script = Path(sys.executable).with_name("clbench")
    subprocess.run([script, *arguments], check=True, capture_output=True)


def stamp() -> str:
    """When something was measured."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
