"""What watches a run and passes its numbers on: the interface, and what a run did before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clbench.core.results.result import RunResult

LOSS_FILE = "metrics.jsonl"


class Tracker(Protocol):
    """Receives the numbers of one run, in this order: `begin`, then `losses` and `row`, `end`.

    A tracker may raise whatever it likes: the run goes on without it. It gets no handle on the
    training, and what it draws from random generators is given back.
    """

    name: str

    def begin(self, result: RunResult, folder: Path) -> None:
        """The run starts or goes on; `result` and the run directory hold what is done."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Mean loss terms and learning rate up to a step, counted over all tasks."""

    def row(self, result: RunResult) -> None:
        """One more task is learned and tested."""

    def end(self, finished: bool) -> None:
        """The run is complete, or stops before that. Not called without `begin`."""


@dataclass(frozen=True)
class Stage:
    """What one task added to a run.

    Attributes:
        learned: tasks learned after it; 0 is the test before training.
        tested: whether its row of the accuracy matrix is known; not so in the middle of a task.
        steps: optimizer steps so far, over all tasks.
        losses: step over all tasks and values of every loss record of the task.
    """

    learned: int
    tested: bool
    steps: int
    losses: tuple[tuple[int, dict[str, float]], ...]


def stages(result: RunResult, folder: Path) -> Iterator[Stage]:
    """The tasks of a run so far, with the losses that its directory keeps."""
    records: dict[int, list[dict[str, Any]]] = {}
    path = folder / LOSS_FILE
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        record = json.loads(line)
        records.setdefault(record.pop("task"), []).append(record)
    steps, tested = 0, result.matrix.learned
    for learned in range(max(tested, *records, 0) + 1):
        losses = tuple(
            (steps + record["step"], {k: v for k, v in record.items() if k != "step"})
            for record in records.get(learned, ())
        )
        steps = losses[-1][0] if losses else steps
        yield Stage(learned, learned <= tested, steps, losses)


def probe_values(result: RunResult, learned: int) -> Iterator[tuple[str, float]]:
    """What probes measured after so many tasks, without details: ``probe/measure`` and number."""
    for probe, record in sorted(result.probes.items()):
        for key, row in record.main.items():
            if (value := row[learned]) is not None:
                yield f"{probe}/{key}", value
