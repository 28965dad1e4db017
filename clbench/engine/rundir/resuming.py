"""Where an interrupted run goes on: the newest checkpoint that is sound and fits the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.engine.rundir.checkpoints import (
    Checkpoint,
    CheckpointStore,
    DamagedCheckpointError,
    Position,
)
from clbench.engine.rundir.directory import RunDirectory
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.sources import source_hash

SAME_MACHINE = ("packages", "processor", "instructions", "threads", "device", "cuda")
"""What decides the last digits of numbers; keys of a result's provenance."""


@dataclass(frozen=True)
class Resume:
    """What an interrupted run goes on from.

    Attributes:
        result: the result so far.
        checkpoint: the newest sound checkpoint.
        start: the checkpoint at the beginning of the task; None where `checkpoint` is one
            itself, or where the task is the first.
    """

    result: RunResult
    checkpoint: Checkpoint
    start: Checkpoint | None = None

    @property
    def position(self) -> Position:
        """How far the run had come."""
        return self.checkpoint.position

    @property
    def matrix(self) -> AccuracyMatrix:
        """The rows that are known for certain: those up to the checkpoint."""
        matrix = self.result.matrix
        values = matrix.values.copy()
        values[self.position.learned + 1 :] = np.nan
        return replace(matrix, values=values)

    @property
    def counters(self) -> dict[str, Any]:
        """What the checkpoint counted, with the restarts since then."""
        counters = dict(self.checkpoint.counters)
        noted = self.result.provenance["resumed"]
        return counters | {"resumed": max(counters["resumed"], noted, key=len)}

    @property
    def untested(self) -> bool:
        """Whether the last task is learned but its row is not measured."""
        return self.matrix.learned < self.position.learned

    @property
    def costs_are_newer(self) -> bool:
        """Whether the result was written after the checkpoint: the row was tested in between."""
        return not self.position.step and self.result.matrix.learned == self.position.learned

    def __str__(self) -> str:
        names, learned = self.result.benchmark.tasks, self.position.learned
        if self.position.step:
            return f"after step {self.position.step} of {names[learned]}"
        return f"after task {learned}/{len(names)}"


def find_resume(directory: RunDirectory, note: Callable[[str], None]) -> Resume | None:
    """Find what to resume from; None means starting from the beginning.

    Args:
        directory: the run directory.
        note: receives a line for every checkpoint that is damaged.
    """
    result = directory.result()
    if result is None:
        return None
    store, damaged = directory.checkpoints, False
    for position in store.positions():
        if position.start.learned > result.matrix.learned + (0 if position.step else 1):
            continue  # its result was lost, so it cannot be told what it belongs to
        try:
            return _load(result, store, position)
        except DamagedCheckpointError as error:
            note(f"skipping a damaged checkpoint: {error}")
            damaged = True
    if result.matrix.learned or damaged:
        note(f"no checkpoint of {directory.path} is readable: starting from the beginning")
    return None


def resume_at(directory: RunDirectory, position: Position) -> Resume:
    """What the leader of several processes goes on from, read by another of them.

    Raises:
        ClbenchError: the checkpoint is damaged.
    """
    result = directory.result()
    if result is None:
        raise ClbenchError(f"the result in {directory.path} disappeared: run again")
    try:
        return _load(result, directory.checkpoints, position)
    except DamagedCheckpointError as error:
        raise ClbenchError(str(error)) from error


def _load(result: RunResult, store: CheckpointStore, position: Position) -> Resume:
    """The checkpoint and, within a task, the one of its start.

    Raises:
        DamagedCheckpointError: one of them is.
    """
    within = position.step and position.learned
    checkpoint = store.load(position)
    return Resume(result, checkpoint, store.load(position.start) if within else None)


def require_same_source(result: RunResult, cls: type[Method], path: Path) -> None:
    """Refuse a result that another version of the method led to.

    Args:
        result: of an earlier run with the same settings.
        cls: the method as it is now.
        path: the run directory.

    Raises:
        ClbenchError: the source of the method changed, or is not recorded.
    """
    before, now = result.method.source, source_hash(cls)
    if before == now:
        return
    what = f"changed ({before} is now {now})" if before else "is not recorded in it"
    raise ClbenchError(
        f"{path} holds a run with these settings, but the source of method {cls.name!r} {what}: "
        "add --fresh to start anew (the old run is kept aside), or put the source back"
    )


def require_same_inputs(result: RunResult, inputs: Inputs, path: Path) -> None:
    """Refuse a result that other weights, images, prompts or reference data led to.

    Args:
        result: of an earlier run with the same settings.
        inputs: as they are now.
        path: the run directory.

    Raises:
        ClbenchError: names all that changed.
    """
    if changed := inputs.changes_since(result):
        raise ClbenchError(
            f"{path} holds a run with these settings, but this has changed since it began: "
            f"{', '.join(changed)}; add --fresh to start anew (the old run is kept aside), or put "
            "back what it began with"
        )


def differences(result: RunResult, now: dict[str, Any]) -> list[str]:
    """What of machine and software is not as it was when a result was written."""
    before = result.provenance
    return [key for key in SAME_MACHINE if key in before and before[key] != now[key]]
