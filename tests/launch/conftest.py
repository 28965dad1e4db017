"""Cells that behave in a known way, and launchers for them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clbench.launch.cells import Cell, Event, Resources
from clbench.launch.engines.local import Local
from clbench.launch.engines.machine import Machine
from clbench.launch.records import Records

PROGRAM = (sys.executable, "-S", "-P", str(Path(__file__).with_name("stand_in.py")))


def make_cell(runs_dir: Path, behaviour: str, number: int = 0, **options: object) -> Cell:
    """A cell whose process is `stand_in.py`."""
    key = f"toy/{behaviour}/seed{number}-0123abcd"
    path = runs_dir / key
    command = ("run", behaviour, key, "--runs-dir", str(runs_dir))
    return Cell(command, path, key, "toy", behaviour, number, "mini", **options)  # type: ignore[arg-type]


def starts(cell: Cell) -> list[str]:
    """A line for every start of a cell: threads, and devices or a dash."""
    return (cell.path / "starts").read_text().splitlines()


def until(condition: Callable[[], bool]) -> None:
    """Wait for another process."""
    for _ in range(12000):  # minutes, for machines that have much else to do
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("what was waited for did not happen")


class Noted:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None, int]] = []
        self.codes: dict[str, list[int | None]] = {}

    def event(self, event: Event, left: int) -> None:
        outcome = None if event.outcome is None else str(event.outcome)
        self.events.append((event.cell.method, outcome, left))
        if event.outcome is not None:
            self.codes.setdefault(event.cell.method, []).append(event.code)

    def of(self, behaviour: str) -> list[tuple[str | None, int]]:
        """Outcomes and attempts left of one cell, without its starts."""
        found = [(outcome, left) for name, outcome, left in self.events if name == behaviour]
        return [(outcome, left) for outcome, left in found if outcome is not None]


class AtWork(Noted):
    """A watcher that does something once, when a cell has started and is at work."""

    def __init__(self, cell: Cell, action: Callable[[], object]) -> None:
        super().__init__()
        self._cell, self._action, self._done = cell, action, False

    def event(self, event: Event, left: int) -> None:
        super().event(event, left)
        if not self._done and event.cell == self._cell:
            self._done = True
            until(lambda: (self._cell.path / "ready").exists())
            self._action()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "runs")


@pytest.fixture
def cell(records: Records) -> Callable[..., Cell]:
    """Makes a cell by its behaviour."""
    return lambda *arguments, **options: make_cell(records.runs_dir, *arguments, **options)


@pytest.fixture
def local(records: Records) -> Callable[..., Local]:
    """A launcher on a machine with so many cores and devices."""

    def make(cores: int = 2, devices: Sequence[str] = (), memory: int = 2**33) -> Local:
        return Local(records, Machine(cores, memory, tuple(devices)), PROGRAM)

    return make


ONE = Resources(jobs=1, cpus=1)
TWO = Resources(jobs=2, cpus=1)
