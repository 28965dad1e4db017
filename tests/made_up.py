"""Results made up for tests of what reads them: reports and trackers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import (
    AccuracyRecord,
    BackboneRecord,
    BenchmarkRecord,
    CostRecord,
    DataRecord,
    FootprintRecord,
    MethodRecord,
    RunResult,
)
from clbench.core.task import Setting

VALUES = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [0.7, 0.9, 0.6], [0.6, 0.8, 1.0]]
INCREMENTAL = [[None, None, None], [1.0, None, None], [0.6, 0.8, None], [0.5, 0.7, 0.9]]
TASKS = ("arrows", "clocks", "flags")
MakeResult = Callable[..., RunResult]


def make_result(
    method: str = "nusa",
    seed: int = 0,
    values: Sequence[Sequence[float | None]] = VALUES,
    params: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **changes: Any,
) -> RunResult:
    """A run on a made-up benchmark; `changes` replace fields of any part by their name."""
    counts = changes.get("counts", (100, 200, 50))
    setting = changes.get("setting", Setting.TASK_GIVEN)
    matrix = AccuracyMatrix.from_lists(changes.get("tasks", TASKS), values, counts, setting)

    def pick(**defaults: Any) -> dict[str, Any]:
        return {key: changes.get(key, value) for key, value in defaults.items()}

    return RunResult(
        **pick(status="complete", config_hash="0a1b2c3d"),
        benchmark=BenchmarkRecord(
            name=changes.get("benchmark", "mini"),
            tasks=matrix.tasks,
            **pick(version=1, setting=setting, order="I"),
        ),
        method=MethodRecord(name=method, params=params or {}, **pick(needs=(), paper="")),
        backbone=BackboneRecord(**pick(model="ViT-B-16", weights="openai", fingerprint="f1")),
        seed=seed,
        accuracy=AccuracyRecord.of(matrix),
        summary=matrix.summary(),
        footprint=FootprintRecord(**pick(trainable=1_200_000, added=0, stored=5000, external=0)),
        cost=CostRecord(
            **pick(training_seconds=12.5, evaluation_seconds=3.25, overhead_seconds=0.5),
            **pick(peak_memory_bytes=None, steps=300),
        ),
        config={"benchmark": {"options": changes.get("options", {})}, "train": train or {}},
        data=DataRecord(**pick(splits={}, reference=None)),
        provenance=changes.get("provenance", {}),
        probes=changes.get("probes", {}),
    )


def shifted(amount: float) -> list[list[float]]:
    """The usual accuracies, all after training changed by an amount, within 0 to 1."""
    after = [[min(1.0, max(0.0, value + amount)) for value in row] for row in VALUES[1:]]
    return [VALUES[0], *after]
