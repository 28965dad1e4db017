"""Makes what is missing of a grid with a launcher, until nothing can be done any more."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clbench.launch.cells import Cell, Event, Launcher, Outcome, Resources
from clbench.launch.records import Records

RETRIES = 2
TOLD = (Outcome.MISTAKE, Outcome.DIVERGED)
"""Outcomes of which the last line of the log says everything."""
PAUSE = 5.0
"""Seconds between two looks at runs that other processes make."""


class Watcher(Protocol):
    """Is told what happens."""

    def event(self, event: Event, left: int) -> None:
        """A cell was started, or an attempt at it ended and so many are left."""


@dataclass(frozen=True)
class Failure:
    """A cell that could not be made.

    Attributes:
        cell: which.
        outcome: `Outcome.MISTAKE`, `Outcome.DIVERGED` or `Outcome.FAILED`.
        ending: how its last attempt ended.
        lines: the last lines of its log.
        log: the file.
    """

    cell: Cell
    outcome: Outcome
    ending: str
    lines: tuple[str, ...]
    log: Path

    def told(self, others: int = 0) -> str:
        """The failure in words, with how many other cells failed in the same way."""
        title = self.cell.title
        if others:
            title += f", and {others} other run{'s' * (others > 1)}"
        if self.outcome in TOLD and self.lines:
            return f"{title}: {self.lines[-1].removeprefix('clbench: ')}"
        shown = "".join(f"\n    {line}" for line in self.lines)
        return f"{title}: {self.ending}; its log, {self.log}, ends with{shown}"


class Drive:
    """Makes what is missing of a grid.

    Args:
        launcher: makes runs.
        records: notes what becomes of them.
        retries: how often a cell that failed is tried again.
        watcher: is told what happens.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        launcher: Launcher,
        records: Records,
        retries: int = RETRIES,
        watcher: Watcher | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.launcher = launcher
        self.records = records
        self.retries = retries
        self.watcher = watcher
        self.sleep = sleep
        self._left: dict[str, int] = {}
        self._failures: list[Failure] = []

    def run(self, cells: Sequence[Cell], resources: Resources) -> list[Failure]:
        """Make the cells; those that fail do not keep the others from being made.

        Args:
            cells: what is missing.
            resources: as `Launcher.fitted` returned them for the whole grid.

        Returns:
            Those that could not be made.
        """
        self._failures = []
        self._left = dict.fromkeys((cell.key for cell in cells), self.retries)
        todo = list(cells)
        while todo:
            again: list[Cell] = []
            waited = True
            for event in self._round(todo, resources):
                waited &= event.outcome is Outcome.ELSEWHERE
                if event.outcome is not None and self._goes_on(event):
                    again.append(event.cell)
            if again and waited:
                self.sleep(PAUSE)
            todo = [cell for cell in again if not self._finished_elsewhere(cell)]
        return self._failures

    def _round(self, cells: Sequence[Cell], resources: Resources) -> Iterator[Event]:
        """Every cell once, with notes of what happens."""
        running: dict[str, Cell] = {}
        try:
            with closing(self.launcher.run(cells, resources)) as events:
                for event in events:
                    if event.outcome is None:
                        running[event.cell.key] = event.cell
                        if not self.launcher.stays:
                            self.records.started(event.cell, self.launcher.name, event.where)
                        self._tell(event)
                    else:
                        running.pop(event.cell.key, None)
                    yield event
        finally:
            for cell in () if self.launcher.stays else running.values():  # interrupted
                self.records.ended(cell, Outcome.PREEMPTED, None)

    def _goes_on(self, event: Event) -> bool:
        """Note how an attempt ended. Returns whether the cell is to be tried again."""
        assert event.outcome is not None
        cell, outcome = event.cell, event.outcome
        if outcome is not Outcome.ELSEWHERE and not self.launcher.stays:
            self.records.ended(cell, outcome, event.code, event.reason)
        self._left[cell.key] -= outcome is Outcome.FAILED
        self._tell(event)
        if outcome in (Outcome.PREEMPTED, Outcome.ELSEWHERE):
            return True
        if outcome is Outcome.FAILED and self._left[cell.key] >= 0:
            return True
        if outcome is not Outcome.DONE:
            lines = tuple(self.records.last_lines(cell))
            ending = event.reason or ending_of(event.code)
            log = self.records.log(cell)
            self._failures.append(Failure(cell, outcome, ending, lines, log))
        return False

    def _finished_elsewhere(self, cell: Cell) -> bool:
        if not cell.finished():
            return False
        self._tell(Event(cell, Outcome.DONE, where="elsewhere"))
        return True

    def _tell(self, event: Event) -> None:
        if self.watcher is not None:
            self.watcher.event(event, max(0, self._left[event.cell.key] + 1))


def told_once(failures: Sequence[Failure]) -> list[str]:
    """A text for every cause: what keeps many cells from being made is told of the first."""
    alike: dict[tuple[object, ...], list[Failure]] = {}
    for failure in failures:
        lines = failure.lines[-1:] if failure.outcome in TOLD else failure.lines
        alike.setdefault((failure.outcome, failure.ending, lines), []).append(failure)
    return [first.told(len(others)) for first, *others in alike.values()]


def ending_of(code: int | None) -> str:
    """How a process ended, in words.

    >>> ending_of(1), ending_of(-9), ending_of(None)
    ('ended with exit code 1', 'killed by SIGKILL', 'disappeared')
    """
    if code is None:
        return "disappeared"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
