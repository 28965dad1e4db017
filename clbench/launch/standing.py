"""How the cells of a grid stand, read from the folder of their runs by anybody who sees it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.results.result import FILE_NAME
from clbench.core.results.tracker import LOSS_FILE
from clbench.core.settings import TrainSettings
from clbench.engine.rundir.ownership import NOTE, SILENCE, Owner
from clbench.launch.cells import FINISHED, Cell, Outcome
from clbench.launch.records import CellRecord, Records

STATES = ("done", "running", "waiting", "failed", "mistake")
STARTING = 600.0
"""Seconds that a run may take to import, load and lock before it counts as gone."""
TAIL = 4096


@dataclass(frozen=True)
class Standing:
    """How one cell stands.

    Attributes:
        key: run directory below the folder of all runs.
        state: ``done``, ``running``, ``waiting``, ``failed`` or ``mistake``.
        learned: tasks learned.
        tasks: tasks altogether; None where no result says.
        task: name of the task that is being learned.
        step: optimizer step within it, as far as it is logged.
        steps: of that task; None where they are not known beforehand.
        accuracy: mean over all tasks in the last row that is known, a fraction.
        seconds: spent so far, all restarts together.
        eta: seconds still to go; None where nothing tells.
        where: node and devices.
        reason: of a failure.
    """

    key: str
    state: str
    learned: int = 0
    tasks: int | None = None
    task: str = ""
    step: int = 0
    steps: int | None = None
    accuracy: float | None = None
    seconds: float = 0.0
    eta: float | None = None
    where: str = ""
    reason: str = ""

    @property
    def share(self) -> float:
        """Part of the run that is done."""
        if not self.tasks:
            return 0.0
        within = min(self.step / self.steps, 1.0) if self.steps else 0.0
        return min(1.0, (self.learned + within) / self.tasks)


@dataclass(frozen=True)
class Overview:
    """How all cells of a folder stand.

    Attributes:
        cells: one per cell.
        eta: seconds until all are done, if as many run at a time as now; None where nothing tells.
    """

    cells: tuple[Standing, ...]
    eta: float | None

    @property
    def counts(self) -> dict[str, int]:
        """How many are in each state."""
        return {state: sum(c.state == state for c in self.cells) for state in STATES}

    def plain(self) -> dict[str, Any]:
        """The overview as JSON values."""
        return {
            "counts": self.counts,
            "eta_seconds": self.eta,
            "cells": [asdict(cell) for cell in self.cells],
        }


def overview(runs_dir: Path) -> Overview:
    """How the runs in a folder stand, and those that are wanted in it.

    Raises:
        ClbenchError: there is neither a run nor a plan.
    """
    records = Records(runs_dir)
    planned: dict[str, Cell] = {}
    for plan in records.plans():
        planned |= {cell.key: cell for cell in plan["cells"]}
    paths = {key: runs_dir / key for key in planned}
    paths |= {path.relative_to(runs_dir).as_posix(): path for path in _run_directories(runs_dir)}
    if not paths:
        raise ClbenchError(f"no runs in {runs_dir}: nothing was started there")
    cells = tuple(standing(key, path, records.of(key)) for key, path in sorted(paths.items()))
    return Overview(cells, time_left(cells))


def standing(key: str, path: Path, record: CellRecord) -> Standing:
    """How one cell stands, by its result, its lock and its record."""
    result = _read_result(path)
    status, held = result.get("status"), holder(path)
    progress = _progress(path, result) if result else {}
    if status in FINISHED:
        return Standing(key, "done", **{**progress, "eta": 0.0, "task": "", "step": 0})
    if held or _starting(record):
        return Standing(key, "running", **progress, where=record.where or held)
    ended = Outcome.MISTAKE if record.state == Outcome.DIVERGED else record.state
    failed = ended in (Outcome.FAILED, Outcome.MISTAKE)
    state = ended if failed else "waiting"
    return Standing(key, state, **progress, reason=record.reason if failed else "")


def time_left(cells: Sequence[Standing], jobs: int | None = None) -> float | None:
    """Seconds until all cells are done.

    Those that are not known to take another time are taken for as long as the mean of the others.

    Args:
        cells: all of a grid.
        jobs: how many run at a time; as many as now by default.
    """
    running = [cell for cell in cells if cell.state == "running"]
    waiting = [cell for cell in cells if cell.state == "waiting"]
    whole = [c.seconds / c.share for c in cells if c.seconds and c.share > 0]
    if not running and not waiting:
        return 0.0
    if not whole:
        return None
    mean = sum(whole) / len(whole)
    left = sum(mean if cell.eta is None else cell.eta for cell in running)
    left += sum(mean * (1 - cell.share) for cell in waiting)
    return left / max(1, jobs or len(running))


def holder(path: Path) -> str:
    """Who holds a run directory, in words; empty if nobody does.

    The lock itself is not touched: a look at it could keep a run from taking it.
    """
    note = path / NOTE
    owner = Owner.read(note)
    if owner is None:
        return ""
    here = Owner.current()
    if (owner.host, owner.boot) == (here.host, here.boot):
        alive = _alive(owner.pid)
    else:
        alive = _age(note) < SILENCE
    return str(owner) if alive else ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _age(path: Path) -> float:
    """Seconds since a file was touched; endless if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _starting(record: CellRecord) -> bool:
    """Whether a run was started so lately that it need not hold its directory yet."""
    if record.state != "running":
        return False
    with suppress(ValueError):
        age = datetime.now(UTC) - datetime.fromisoformat(record.started)
        return age.total_seconds() < STARTING
    return False


def _run_directories(runs_dir: Path) -> Iterable[Path]:
    """Folders ``<benchmark>/<method>/seed…`` that hold a run."""
    for pattern in (FILE_NAME, NOTE):
        for path in runs_dir.glob(f"*/*/seed*/{pattern}"):
            yield path.parent


def _read_result(path: Path) -> dict[str, Any]:
    """The result without checks, which would take long for thousands of runs."""
    try:
        content = json.loads((path / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _progress(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What a result and the last line of losses say; nothing of a result that makes no sense."""
    try:
        names = result["benchmark"]["tasks"]
        rows = [row for row in result["accuracy"]["values"] if any(v is not None for v in row)]
        learned, values = max(0, len(rows) - 1), [v for v in rows[-1] if v is not None]
        spent = sum(result["cost"][f"{k}_seconds"] for k in ("training", "evaluation", "overhead"))
        train = TrainSettings.model_validate(result["config"]["train"])
    except (LookupError, TypeError, ValueError):
        return {}
    found = {
        "learned": learned,
        "tasks": len(names),
        "accuracy": sum(values) / len(values),
        "seconds": round(spent, 3),
    }
    if learned == len(names):
        return found
    last = _last_loss(path)
    step = last.get("step", 0) if last.get("task") == learned + 1 else 0
    steps = None if train.epochs else train.steps_for(names[learned], 1)
    share = learned + (step / steps if steps else 0)
    eta = spent / learned * (len(names) - share) if learned else None
    return {**found, "task": names[learned], "step": step, "steps": steps, "eta": eta}


def _last_loss(path: Path) -> dict[str, Any]:
    """The last whole line of ``metrics.jsonl``."""
    try:
        with (path / LOSS_FILE).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}
