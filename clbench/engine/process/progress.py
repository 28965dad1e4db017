"""What the user sees while a run goes on: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from clbench.core.foreign.console import print_line


class Reporter(Protocol):
    """Receives the events of a run."""

    def begin(self, title: str, tasks: Sequence[str], done: int) -> None:
        """A run starts, or goes on with `done` tasks finished."""

    def training(self, task: int, steps: int) -> None:
        """Training on a task begins."""

    def stepped(self) -> None:
        """One optimizer step is done."""

    def loss(self, value: float) -> None:
        """The latest mean loss."""

    def testing(self, images: int) -> None:
        """A test of that many images begins."""

    def tested(self, images: int) -> None:
        """That many more images are tested."""

    def probing(self, name: str) -> None:
        """A probe begins to look at the model."""

    def row(self, learned: int, accuracy: Mapping[int, float]) -> None:
        """Accuracy per task index after `learned` tasks."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def end(self) -> None:
        """The run is over, or was interrupted."""


class QuietReporter:
    """Shows nothing."""

    def begin(self, title: str, tasks: Sequence[str], done: int) -> None: ...
    def training(self, task: int, steps: int) -> None: ...
    def stepped(self) -> None: ...
    def loss(self, value: float) -> None: ...
    def testing(self, images: int) -> None: ...
    def tested(self, images: int) -> None: ...
    def probing(self, name: str) -> None: ...
    def row(self, learned: int, accuracy: Mapping[int, float]) -> None: ...
    def note(self, text: str) -> None: ...
    def end(self) -> None: ...


class PlainReporter(QuietReporter):
    """One line per finished task, for log files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: Sequence[str] = ()
        self._loss: float | None = None
        self._started = time.monotonic()

    def begin(self, title: str, tasks: Sequence[str], done: int) -> None:
        self._tasks = tasks
        self._started = time.monotonic()
        self._line(title if not done else f"{title}: resuming after task {done}/{len(tasks)}")

    def loss(self, value: float) -> None:
        self._loss = value

    def row(self, learned: int, accuracy: Mapping[int, float]) -> None:
        self._line(row_text(self._tasks, learned, accuracy, self._loss), timed=True)
        self._loss = None

    def note(self, text: str) -> None:
        self._line(text)

    def _line(self, text: str, *, timed: bool = False) -> None:
        suffix = f"  [{time.monotonic() - self._started:.0f} s]" if timed else ""
        print_line(self._console, f"{text}{suffix}")


class RichReporter(PlainReporter):
    """A bar over the tasks and one over the current training or test."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._overall = TaskID(0)
        self._current = TaskID(0)
        self._label = ""

    def begin(self, title: str, tasks: Sequence[str], done: int) -> None:
        super().begin(title, tasks, done)
        self._progress.start()
        self._overall = self._progress.add_task("tasks", total=len(tasks), completed=done)
        self._current = self._progress.add_task("preparing", total=None)

    def training(self, task: int, steps: int) -> None:
        self._start(f"train {self._tasks[task]}", steps)

    def stepped(self) -> None:
        self._progress.advance(self._current)

    def loss(self, value: float) -> None:
        super().loss(value)
        self._progress.update(self._current, description=f"{self._label}  loss {value:.3f}")

    def testing(self, images: int) -> None:
        self._start("test", images)

    def tested(self, images: int) -> None:
        self._progress.advance(self._current, images)

    def probing(self, name: str) -> None:
        self._start(f"probe {name}", None)

    def row(self, learned: int, accuracy: Mapping[int, float]) -> None:
        super().row(learned, accuracy)
        self._progress.update(self._overall, completed=learned)

    def end(self) -> None:
        self._progress.stop()

    def _start(self, label: str, total: int | None) -> None:
        self._label = label
        self._progress.reset(self._current, total=total, description=label)


def row_text(
    tasks: Sequence[str],
    learned: int,
    accuracy: Mapping[int, float],
    loss: float | None = None,
) -> str:
    """One line on a finished row of the matrix.

    >>> row_text(["digits", "flags"], 1, {0: 0.9, 1: 0.5})
    '1/2 digits: 90.0 %, mean of all tasks 70.0 %'
    """
    scores = list(accuracy.values())
    mean = f"mean of {'all' if len(scores) == len(tasks) else len(scores)} tasks"
    average = f"{100 * sum(scores) / len(scores):.1f} %" if scores else "none"
    if learned == 0:
        return f"0/{len(tasks)} zero-shot: {mean} {average}"
    own = accuracy.get(learned - 1)
    shown = "" if own is None else f" {100 * own:.1f} %,"
    ending = "" if loss is None else f", loss {loss:.3f}"
    return f"{learned}/{len(tasks)} {tasks[learned - 1]}:{shown} {mean} {average}{ending}"


def make_reporter(console: Console, *, quiet: bool = False) -> Reporter:
    """Bars on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        return QuietReporter()
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
