"""What a launcher is given and what it gives back: cells, resources, events.

A cell is one run as a command line, with its run directory. Nothing else is handed to the process
that makes it, so that the process may be on another machine and outlive the one that asked for it.
"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from clbench.core.errors import ClbenchError, DivergedError
from clbench.core.results.result import FILE_NAME

FINISHED = frozenset({"complete", "quick"})
"""Status of results to which nothing is left to add."""
MISTAKE, DIVERGED = ClbenchError.code, DivergedError.code
"""Exit codes of commands that their user has to mend."""
STOPPED = frozenset(
    code for number in (signal.SIGINT, signal.SIGTERM) for code in (128 + number, -number)
)
"""Exit codes of a process that somebody asked to stop."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        command: arguments of `clbench`, the first of them ``run``.
        path: run directory.
        key: the same below the folder of all runs; names the cell.
        benchmark: its name.
        method: its name.
        seed: of the training.
        backbone: architecture.
        variant: settings in which it differs from other cells, as text; may be empty.
        threads: with which an interrupted run began, and must go on; None for a new one.
    """

    command: tuple[str, ...]
    path: Path
    key: str
    benchmark: str
    method: str
    seed: int
    backbone: str
    variant: str = ""
    threads: int | None = None

    @property
    def title(self) -> str:
        """The cell in a few words."""
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.method} on {self.benchmark}, seed {self.seed}{variant}"

    @property
    def command_line(self) -> str:
        """What to type to make this run alone."""
        return shlex.join(("clbench", *self.command))

    def finished(self) -> bool:
        """Whether the run directory holds a result to which nothing is left to add."""
        return read_status(self.path) in FINISHED

    def plain(self) -> dict[str, Any]:
        """The cell as JSON values."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Cell:
        """The cell that `plain` returned."""
        command, path = tuple(content["command"]), Path(content["path"])
        return cls(**{**content, "command": command, "path": path})


@dataclass(frozen=True)
class Resources:
    """What cells may use. None stands for what the launcher finds suitable.

    Attributes:
        jobs: cells at a time.
        cpus: threads of one cell.
        gpus: CUDA devices of one cell; a fraction shares a device.
        memory: bytes of one cell.
        time: seconds of one cell.
    """

    jobs: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    memory: int | None = None
    time: int | None = None

    def or_else(self, other: Resources) -> Resources:
        """These, and where they say nothing, the others."""
        mine, others = asdict(self), asdict(other)
        return Resources(**{k: others[k] if v is None else v for k, v in mine.items()})


NAMES = tuple(field.name for field in fields(Resources))


class Outcome(StrEnum):
    """How an attempt at a cell ended."""

    DONE = "done"
    PREEMPTED = "preempted"
    """Asked to stop; goes on later, as if nothing had happened."""
    ELSEWHERE = "elsewhere"
    """Another process makes this run."""
    MISTAKE = "mistake"
    """The user has to mend something; trying again would not help."""
    DIVERGED = "diverged"
    """Training goes wrong with these settings; trying again would not help."""
    FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """A cell was started, or an attempt at it ended.

    Attributes:
        cell: which.
        outcome: None if it was started.
        code: exit code of its process; negative for a signal, None if it left no trace.
        reason: what is known besides the log.
        where: node and devices, for people.
    """

    cell: Cell
    outcome: Outcome | None = None
    code: int | None = None
    reason: str = ""
    where: str = ""


class Launcher(Protocol):
    """Makes runs somewhere.

    Attributes:
        name: as the user types it.
        stays: whether cells go on when the process that asked for them ends; they then write their
            records themselves.
    """

    name: str
    stays: bool

    def fitted(self, cells: Sequence[Cell], resources: Resources) -> Resources:
        """The resources with what suits the whole grid where the user said nothing.

        Raises:
            ClbenchError: what is asked for is not there.
        """

    def run(self, cells: Sequence[Cell], resources: Resources) -> Generator[Event]:
        """Make every cell once, and say when it starts and ends.

        Closing the iterator ends what still runs gracefully, unless the launcher `stays`.
        """

    def farewell(self) -> str:
        """What a user who interrupts should know; may be empty."""


def read_status(path: Path) -> str | None:
    """Status of the result in a run directory; None if there is none that can be read."""
    try:
        content = json.loads((path / FILE_NAME).read_text(encoding="utf-8"))
        return str(content["status"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def outcome_of(cell: Cell, code: int | None, held: bool = False) -> Outcome:
    """What an exit code means, looked at together with the result.

    Args:
        cell: which was attempted.
        code: exit code of its process; None if it is unknown.
        held: whether another process holds the run directory.
    """
    if code in STOPPED:
        return Outcome.PREEMPTED
    if code == DIVERGED:
        return Outcome.DIVERGED
    if code == MISTAKE:
        return Outcome.ELSEWHERE if held else Outcome.MISTAKE
    if code in (0, None) and cell.finished():
        return Outcome.DONE
    return Outcome.FAILED
