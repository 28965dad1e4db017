"""Larger made-up studies: the eleven MTIL data sets, fifty class-incremental steps, ugly names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clbench import registry
from clbench.core.results.result import EffectiveRankRecord, RunResult
from clbench.core.task import Setting
from clbench.naming import titled
from tests.made_up import make_result

MTIL = (
    "Aircraft",
    "Caltech101",
    "CIFAR100",
    "DTD",
    "EuroSAT",
    "Flowers",
    "Food",
    "MNIST",
    "OxfordPet",
    "StanfordCars",
    "SUN397",
)
ZERO_SHOT = (24.3, 88.4, 68.2, 44.6, 54.9, 71.0, 88.5, 59.4, 89.0, 64.7, 65.2)
LEARNED = (58.0, 96.0, 88.0, 79.0, 98.5, 97.0, 92.5, 99.4, 94.5, 89.0, 82.0)
# Method: accuracy lost per task on learned and on unseen tasks, seconds, growth of the rank.
TRAITS: dict[str, tuple[float, float, float, float | None]] = {
    "zeroshot": (0.0, 0.0, 0.0, None),
    "finetune": (2.6, 2.2, 1400.0, 0.004),
    "lora": (1.6, 1.0, 2100.0, 0.006),
    "milora": (1.8, 1.2, 2200.0, 0.003),
    "nusa": (0.45, 0.3, 2150.0, 0.0009),
    "gnsp": (0.3, 0.15, 9600.0, 0.0001),
}
HOSTILE = "<img src=x onerror=alert(1)>"
UGLY_TASKS = (
    "</script><script>window.hacked=1</script>",
    r"$\frac{broken",
    "_hidden & 50% \"quoted\" 'name'",
)


def mtil_study(
    seeds: Sequence[int] = (0, 1, 2), methods: Sequence[str] = tuple(TRAITS)
) -> list[RunResult]:
    """Every method with every seed on the eleven data sets."""
    numbers = {method: number for number, method in enumerate(TRAITS)}
    return [_mtil_run(m, seed, TRAITS[m], numbers[m]) for m in methods for seed in seeds]


def wide_study(seeds: Sequence[int] = (0,), shared: bool = True) -> list[RunResult]:
    """Every method of clbench on the eleven data sets, with its title and family."""
    runs = []
    for number, name in enumerate(registry.method_names()):
        lost, unseen = 0.2 + (7 * number % 33) / 15, 0.1 + (10 * number % 33) / 18
        traits = TRAITS.get(name, (lost, unseen, 900.0 + 250 * number, 0.0001 * (number + 1)))
        cls = registry.method(name)
        needs = tuple(sorted(cls.needs))
        stores = number % 3 and traits[-1] is not None
        storing = {"stored": 30_000_000 * number if stores else 0}
        reference = {"reference": "ConceptualCaptions: 100,000 pairs"} if needs else {}
        provenance = {"launch": {"shared": True}} if shared else {}
        changes = {"needs": needs, "provenance": provenance, **storing, **reference}
        runs += [_mtil_run(name, seed, traits, number, **changes) for seed in seeds]
    return titled(runs)


def incremental_study(steps: int = 50, seeds: Sequence[int] = (0, 1, 2)) -> list[RunResult]:
    """Class-incremental runs of three methods; cells of steps not yet learned are missing."""
    runs = []
    drops = {"finetune": 0.02, "lora": 0.012, "nusa": 0.004}
    for number, (method, drop) in enumerate(drops.items()):
        for seed in seeds:
            noise = np.random.default_rng([number, seed]).normal(0, 0.03, (steps + 1, steps))
            age = np.arange(steps + 1)[:, None] - np.arange(1, steps + 1)
            values = np.clip(0.9 - drop * age + noise, 0, 1)
            rows = [
                [None if j >= t else round(float(v), 4) for j, v in enumerate(row)]
                for t, row in enumerate(values)
            ]
            names = tuple(f"classes {2 * j}-{2 * j + 1}" for j in range(steps))
            run = make_result(
                method,
                seed,
                rows,
                tasks=names,
                counts=(200,) * steps,
                setting=Setting.CLASS_INCREMENTAL,
                benchmark=f"cifar100-{steps}step",
                training_seconds=600.0 * (number + 1),
            )
            runs.append(run)
    return runs


def hostile_study() -> list[RunResult]:
    """Names that are HTML, mathematics or hidden to matplotlib, wherever a name can stand."""
    return [
        make_result(
            name,
            0,
            tasks=UGLY_TASKS,
            benchmark=f"folder:/data/{HOSTILE}",
            params={HOSTILE: f"</pre>{HOSTILE}"},
            paper="javascript:alert(1)",
            needs=(HOSTILE,),
            provenance={"git": HOSTILE, "packages": {HOSTILE: "]]>--><script>"}},
            config_hash="c0ffee00",
            training_seconds=60.0,
        )
        for name in (HOSTILE, "_nusa", r"a_very_long_method_name_$that_does$_not_end_" * 2)
    ]


def with_ranks(result: RunResult, growth: float) -> RunResult:
    """A run with a made-up effective rank that grows by a fraction per task."""
    rows = range(len(result.accuracy.values))
    values = {
        "text": tuple(round(min(1.0, 0.579 + growth * t), 6) for t in rows),
        "vision": tuple(round(min(1.0, 0.518 + 0.8 * growth * t), 6) for t in rows),
    }
    record = EffectiveRankRecord(energy=0.95, values=values)
    return result.model_copy(update={"effective_rank": record})


def _mtil_run(
    method: str,
    seed: int,
    traits: tuple[float, float, float, float | None],
    number: int,
    **changes: Any,
) -> RunResult:
    lost, unseen, seconds, growth = traits
    noise = np.random.default_rng([number, seed]).normal(0, 0.4, (12, 11)) * (growth is not None)
    values = np.empty((12, 11))
    for t in range(12):
        for j in range(11):
            before = ZERO_SHOT[j] - unseen * t * (0.5 + ZERO_SHOT[j] / 100)
            after = LEARNED[j] - lost * (t - j - 1) * (0.5 + (j % 4) / 3)
            values[t, j] = before if growth is None or t <= j else after
    values = np.clip((values + noise * (np.arange(12) > 0)[:, None]) / 100, 0, 1)
    counts = (3333, 1736, 10000, 1880, 5400, 6149, 25250, 10000, 3669, 8041, 21751)
    exact = np.round(values * counts) / counts
    costs: dict[str, Any] = {
        "training_seconds": seconds,
        "trainable": 0 if growth is None else 1_572_864,
        "stored": 0 if growth is None else 5000,
        "peak_memory_bytes": 9_000_000_000,
    }
    place: dict[str, Any] = {"tasks": MTIL, "counts": counts, "benchmark": "mtil"}
    run = make_result(method, seed, exact.tolist(), **{**place, **costs, **changes})
    return run if growth is None else with_ranks(run, growth * (1 + 0.05 * seed))
