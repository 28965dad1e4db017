"""Cells as array jobs of Slurm.

Only `sbatch`, `squeue` and `scontrol` are used; accounting is not needed. The jobs go on when the
driver ends, and the next driver finds them again by their names. A job that is preempted, or near
its time limit, saves and puts itself back into the queue; one that dies without a trace is
submitted again.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.launch.cells import Cell, Event, Outcome, Resources
from clbench.launch.engines.nursery import PROGRAM, import_path
from clbench.launch.quantities import shown_memory
from clbench.launch.records import Records
from clbench.launch.standing import holder

COMMANDS = ("sbatch", "squeue", "scontrol")
JOB = "clbench.launch.engines.job"
LARGEST = 1000
"""Cells of one array: Slurm's default limit is 1001."""
WARNING = 120
"""Seconds before the time limit at which a run is asked to save."""
PAUSE = 10.0
"""Seconds between two looks at the queue."""
ABSENT = 2
"""Looks in a row in which a job is missing before it counts as gone."""


@dataclass(frozen=True)
class Queued:
    """An array task in the queue.

    Attributes:
        state: in Slurm's words, e.g. ``PENDING``.
        reason: why it is pending.
        node: where it runs.
    """

    state: str
    reason: str
    node: str


@dataclass
class _Watched:
    """A cell that is, or was, in the queue."""

    cell: Cell
    started: bool = False
    absent: int = 0


class Slurm:
    """Runs cells as array jobs.

    Args:
        records: where jobs note what becomes of cells; all nodes must see that folder.
        options: further options of `sbatch`, e.g. ``--partition=gpu``.
        program: how a cell is started; clbench by default.
        pause: seconds between two looks at the queue.

    Raises:
        ClbenchError: Slurm's commands are not there.
    """

    name = "slurm"
    stays = True

    def __init__(
        self,
        records: Records,
        options: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
        pause: float = PAUSE,
    ) -> None:
        if missing := [name for name in COMMANDS if shutil.which(name) is None]:
            raise ClbenchError(
                f"--launcher slurm needs {', '.join(missing)}: run this on a machine from which "
                "jobs are submitted"
            )
        self.records = records
        self.options = tuple(options)
        self.program = tuple(program)
        self.pause = pause
        self.folder = records.folder / "slurm"

    def fitted(self, cells: Sequence[Cell], resources: Resources) -> Resources:
        """One thread per cell and no device, if nothing else is said; all cells at a time."""
        gpus = resources.gpus or 0.0
        if gpus != round(gpus):
            raise ClbenchError(f"--gpus {gpus:g}: Slurm gives whole devices to a job")
        jobs = resources.jobs or max(1, len(cells))
        return replace(resources, jobs=jobs, cpus=resources.cpus or 1, gpus=gpus)

    def run(self, cells: Sequence[Cell], resources: Resources) -> Generator[Event]:
        """See `Launcher.run`."""
        queue = self.queue()
        watched: dict[str, _Watched] = {}
        fresh: list[Cell] = []
        for cell in cells:
            if cell.key not in queue:
                if found := holder(cell.path):
                    yield Event(cell, Outcome.ELSEWHERE, reason=found)
                    continue
                fresh.append(cell)
            watched[cell.key] = _Watched(cell)
        self.submit(fresh, self.fitted(cells, resources))
        while watched:
            queue = self.queue()
            for key, one in list(watched.items()):
                if (event := self._look(one, queue.get(key))) is not None:
                    if event.outcome is not None:
                        del watched[key]
                    yield event
            if watched:
                time.sleep(self.pause)

    def farewell(self) -> str:
        """See `Launcher.farewell`."""
        names = sorted(self._plans())
        if not names:
            return ""
        return (
            "the jobs stay in Slurm's queue: the same command watches them again; to cancel them: "
            f"scancel --name={','.join(names)}"
        )

    def submit(self, cells: Sequence[Cell], resources: Resources) -> list[str]:
        """Put cells into the queue; returns the names of the jobs.

        Raises:
            ClbenchError: Slurm refuses them.
        """
        names: list[str] = []

        def threads(cell: Cell) -> int:
            return cell.threads or resources.cpus or 1

        for count, alike in groupby(sorted(cells, key=threads), key=threads):
            group = list(alike)
            for start in range(0, len(group), LARGEST):
                part = group[start : start + LARGEST]
                names.append(self._submit(part, replace(resources, cpus=count)))
        return names

    def queue(self) -> dict[str, Queued]:
        """Cells in the queue, by their keys.

        Raises:
            ClbenchError: Slurm does not answer.
        """
        plans = self._plans()
        if not plans:
            return {}
        text = _said(
            ["squeue", "-h", "-r", f"--name={','.join(sorted(plans))}", "-o", "%j|%K|%T|%r|%N"]
        )
        found: dict[str, Queued] = {}
        present: set[str] = set()
        for line in text.splitlines():
            name, index, state, reason, node = line.split("|", 4)
            present.add(name)
            if name in plans and index.isdigit() and int(index) < len(plans[name]):
                found[plans[name][int(index)]] = Queued(state, reason, node)
        for name in plans.keys() - present:
            with suppress(OSError):
                (self.folder / f"{name}.json").unlink()
        return found

    def _look(self, one: _Watched, queued: Queued | None) -> Event | None:
        """What has happened to a cell since the last look."""
        cell = one.cell
        if queued is not None:
            one.absent = 0
            if queued.state == "RUNNING" and not one.started:
                one.started = True
                return Event(cell, where=queued.node)
            if queued.state == "PENDING":
                one.started = False
            return None
        one.absent += 1
        if one.absent < ABSENT:
            return None
        record = self.records.of(cell.key)
        if cell.finished():
            return Event(cell, Outcome.DONE, record.code)
        if record.state in ("running", "queued", ""):
            reason = "its job left the queue without a trace"
            self.records.ended(cell, Outcome.FAILED, None, reason)
            return Event(cell, Outcome.FAILED, None, reason)
        return Event(cell, Outcome(record.state), record.code, record.reason)

    def _submit(self, cells: Sequence[Cell], resources: Resources) -> str:
        name = f"clbench-{secrets.token_hex(6)}"
        plan = self.folder / f"{name}.json"
        content = {
            "program": self.program,
            "threads": resources.cpus,
            "runs_dir": str(self.records.runs_dir.resolve()),
            "cells": [{**cell.plain(), "path": str(cell.path.resolve())} for cell in cells],
        }
        write_atomic(plan, json.dumps(content))
        for cell in cells:
            self.records.queued(cell, self.name)
        command = shlex.join([sys.executable, "-P", "-m", JOB, str(plan.resolve())])
        script = f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(import_path())}\nexec {command}\n"
        try:
            _said(["sbatch", *self._options(name, len(cells), resources)], script)
        except ClbenchError:
            plan.unlink(missing_ok=True)
            raise
        return name

    def _options(self, name: str, count: int, resources: Resources) -> list[str]:
        jobs = resources.jobs or count
        throttle = f"%{jobs}" if jobs < count else ""
        options = [
            "--parsable",
            f"--job-name={name}",
            f"--array=0-{count - 1}{throttle}",
            "--requeue",
            "--open-mode=append",
            f"--output={self.folder.resolve() / name}.out",
            f"--chdir={Path.cwd()}",
            f"--signal=B:TERM@{WARNING}",
            f"--cpus-per-task={resources.cpus or 1}",
        ]
        if resources.gpus:
            options.append(f"--gpus-per-task={resources.gpus:.0f}")
            options.append("--ntasks=1")
        if resources.memory:
            options.append(f"--mem={shown_memory(resources.memory)}")
        if resources.time:
            options.append(f"--time={max(1, -(-resources.time // 60))}")
        return [*options, *self.options]

    def _plans(self) -> dict[str, list[str]]:
        """Names of jobs that were submitted from this folder, with the keys of their cells."""
        found: dict[str, list[str]] = {}
        for path in self.folder.glob("clbench-*.json"):
            with suppress(OSError, ValueError, LookupError, TypeError):
                content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                found[path.stem] = [cell["key"] for cell in content["cells"]]
        return found


def _said(command: Sequence[str], given: str | None = None) -> str:
    """What one of Slurm's commands prints.

    Raises:
        ClbenchError: it fails.
    """
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise ClbenchError(f"{command[0]}: {' '.join(str(told).split())}") from error
    return done.stdout
