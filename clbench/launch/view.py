"""What a user sees while a grid is made: a live table on a terminal, else a line per event."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clbench.core.foreign.console import print_line
from clbench.launch.cells import Cell, Event, Outcome
from clbench.launch.driving import Watcher, ending_of
from clbench.launch.forecast.estimates import Forecast, total
from clbench.launch.records import CellRecord
from clbench.launch.standing import Overview, Standing, standing
from clbench.report.tables.grid import short_number

SHOWN = 20
"""Running cells that are shown one by one."""
REFRESH = 0.5
"""Redraws per second: each reads the files of what is shown."""


class View(Watcher, Protocol):
    """A watcher that is opened and closed."""

    def __enter__(self) -> View: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Tally:
    """Counts cells, and expects those that are left to take as long as others of their method.

    Args:
        cells: all of the grid.
        done: how many of them were complete before.
        jobs: how many run at a time.
        now: the time in seconds.
    """

    def __init__(
        self, cells: int, done: int, jobs: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.cells = cells
        self.done = done
        self.failed = 0
        self.jobs = max(1, jobs)
        self.running: dict[str, tuple[Cell, float]] = {}
        self._now = now
        self._spent: dict[str, tuple[float, int]] = {}

    @property
    def waiting(self) -> int:
        """How many are neither running nor over."""
        return self.cells - self.done - self.failed - len(self.running)

    def event(self, event: Event, left: int) -> float:
        """Count an event; returns the seconds that the attempt took."""
        cell = event.cell
        if event.outcome is None:
            self.running[cell.key] = (cell, self._now())
            return 0.0
        _, started = self.running.pop(cell.key, (cell, None))
        seconds = 0.0 if started is None else self._now() - started
        if event.outcome is Outcome.DONE:
            self.done += 1
            if started is not None:  # else another process made it
                spent, count = self._spent.get(cell.method, (0.0, 0))
                self._spent[cell.method] = (spent + seconds, count + 1)
        self.failed += event.outcome in (Outcome.MISTAKE, Outcome.DIVERGED) or (
            event.outcome is Outcome.FAILED and left == 0
        )
        return seconds

    def eta(self) -> float | None:
        """Seconds until all are over; None as long as nothing is known.

        >>> from pathlib import Path
        >>> cell = Cell(("run",), Path("a"), "a", "mini", "lora", 0, "mini")
        >>> clock = iter([0.0, 60.0, 60.0])
        >>> tally = Tally(5, 0, 2, lambda: next(clock))
        >>> _ = tally.event(Event(cell), 1), tally.event(Event(cell, Outcome.DONE), 1)
        >>> tally.eta()
        120.0
        """
        if not self._spent:
            return 0.0 if self.cells == self.done + self.failed else None
        mean = {method: spent / count for method, (spent, count) in self._spent.items()}
        spent, count = (sum(column) for column in zip(*self._spent.values(), strict=True))
        now = self._now()
        left = [
            max(0.0, mean.get(cell.method, spent / count) - (now - started))
            for cell, started in self.running.values()
        ]
        whole = sum(left) + self.waiting * spent / count
        longest: float = max([whole / self.jobs, *left])
        return longest

    def line(self) -> str:
        """Counts and expected time."""
        parts = [f"{self.done} of {self.cells} done", f"{len(self.running)} running"]
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        parts += [f"{self.failed} failed"] if self.failed else []
        left = self.eta()
        parts += [] if left is None or left == 0 else [f"about {rough(left)} left"]
        return ", ".join(parts)


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def event(self, event: Event, left: int) -> None:
        """See `Watcher.event`."""


class Lines(Silent):
    """One line per event.

    Args:
        console: where to write.
        tally: counts.
    """

    def __init__(self, console: Console, tally: Tally) -> None:
        self.console = console
        self.tally = tally

    def event(self, event: Event, left: int) -> None:
        """See `Watcher.event`."""
        seconds = self.tally.event(event, left)
        if (text := told(event, left, seconds)) is not None:
            print_line(self.console, f"{text}  [{self.tally.line()}]")


class Board(Silent):
    """A table of what runs, redrawn as the runs go on.

    Args:
        console: a terminal.
        tally: counts.
    """

    def __init__(self, console: Console, tally: Tally) -> None:
        self.console = console
        self.tally = tally
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH,
            transient=True,
        )

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def event(self, event: Event, left: int) -> None:
        """See `Watcher.event`."""
        seconds = self.tally.event(event, left)
        if event.outcome is not None and (text := told(event, left, seconds)) is not None:
            self.console.print(text, markup=False, highlight=False)

    def _draw(self) -> RenderableType:
        running = list(self.tally.running.values())[:SHOWN]
        record = CellRecord(state="running", started=datetime.now(UTC).isoformat())
        rows = [standing(cell.key, cell.path, record) for cell, _ in running]
        hidden = len(self.tally.running) - len(rows)
        more = [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
        return Group(running_table(rows), *more, Text(self.tally.line(), style="bold"))


def running_table(rows: list[Standing]) -> Table:
    """What runs: task, step, accuracy so far, time."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("running", "task", "step", "accuracy", "spent", "left"):
        right = title in ("step", "accuracy", "spent", "left")
        table.add_column(title, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        tasks = "" if row.tasks is None else f"{row.learned + 1}/{row.tasks} {row.task}"
        total = "" if row.steps is None else f"/{row.steps}"
        table.add_row(
            Text(row.key),
            Text(tasks or "starting"),
            f"{row.step}{total}" if tasks else "",
            "" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            rough(row.seconds) if row.seconds else "",
            "" if row.eta is None else rough(row.eta),
        )
    return table


def told(event: Event, left: int, seconds: float) -> str | None:
    """An event as a line; None for one that nobody needs to read."""
    title = event.cell.title
    match event.outcome:
        case None:
            return f"start   {title}{f', {event.where}' if event.where else ''}"
        case Outcome.DONE:
            return f"done    {title}, {seconds:.0f} s"
        case Outcome.PREEMPTED:
            return f"stopped {title}, is put back"
        case Outcome.MISTAKE:
            return f"failed  {title}, has to be mended"
        case Outcome.DIVERGED:
            return f"failed  {title}, training diverged"
        case Outcome.FAILED:
            more = f", is tried again (attempts left: {left})" if left else ""
            return f"failed  {title}, {event.reason or ending_of(event.code)}{more}"
    return None


def status_lines(found: Overview) -> RenderableType:
    """How a folder of runs stands."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    left = "" if not found.eta else f", about {rough(found.eta)} left"
    running = [cell for cell in found.cells if cell.state == "running"]
    broken = [cell for cell in found.cells if cell.state in ("failed", "mistake")]
    parts: list[RenderableType] = [running_table(running)] if running else []
    parts += [Text(f"{cell.state} {cell.key} {cell.reason}".rstrip()) for cell in broken]
    return Group(*parts, Text(f"{counts}{left}", style="bold"))


def forecast_table(forecast: Forecast) -> tuple[Table, str]:
    """The cells of a grid with what they will cost, and a line on the whole."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("run", "state", "time", "memory", "disk", "measured on"):
        right = title in ("time", "memory", "disk")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for cell, state, cost in zip(forecast.cells, forecast.states, forecast.costs, strict=True):
        numbers = (
            ("?", "?", "?", "")
            if cost is None
            else (
                rough(cost.seconds),
                "?" if cost.memory is None else _size(cost.memory),
                _size(cost.disk),
                cost.basis,
            )
        )
        shown = ("", "", "", "") if state == "complete" else numbers
        table.add_row(Text(cell.title), Text(state), *shown)
    return table, _whole(forecast)


def _whole(forecast: Forecast) -> str:
    left = [
        cost
        for cost, state in zip(forecast.costs, forecast.states, strict=True)
        if state != "complete"
    ]
    complete = len(forecast.cells) - len(left)
    jobs = forecast.resources.jobs or len(left) or 1
    text = f"{len(forecast.cells)} runs, {complete} complete, {len(left)} to make"
    if not left:
        return text
    text += f", {min(jobs, len(left))} at a time"
    if all(cost is None for cost in left):
        return f"{text}: nothing like them was measured yet"
    seconds, memory, disk = total(left, jobs)
    text += f": about {rough(seconds)}, {_size(memory)} of memory, {_size(disk)} of disk"
    unknown = sum(cost is None for cost in left)
    return f"{text} ({unknown} taken for the mean of the others)" if unknown else text


def _size(size: float) -> str:
    return short_number(size, "B")


def rough(seconds: float) -> str:
    """A duration as precise as an estimate is.

    >>> [rough(seconds) for seconds in (4, 75, 600, 5400, 200_000)]
    ['4 s', '75 s', '10 min', '1.5 h', '56 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{seconds / 3600:.0f} h"


def make_view(console: Console, tally: Tally, *, quiet: bool) -> View:
    """A table on a terminal, lines elsewhere, nothing if quiet."""
    if quiet:
        return Silent()
    if console.is_terminal:
        return Board(console, tally)
    return Lines(console, tally)
