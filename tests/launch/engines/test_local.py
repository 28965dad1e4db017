"""Processes of this machine: how many, with which threads and devices, and how they end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.launch.cells import Cell, Outcome, Resources
from clbench.launch.engines.local import Local
from clbench.launch.engines.machine import Machine
from clbench.launch.records import Records
from tests.launch.conftest import starts, until

Make = Callable[..., Cell]


def outcomes(launcher: Local, cells: list[Cell], resources: Resources) -> dict[str, Outcome]:
    """How each cell ended, with a check of how many ran at a time."""
    running: set[str] = set()
    ended: dict[str, Outcome] = {}
    for event in launcher.run(cells, resources):
        if event.outcome is None:
            running.add(event.cell.key)
            assert len(running) <= (resources.jobs or 99)
        else:
            running.remove(event.cell.key)
            ended[event.cell.key] = event.outcome
    assert not running
    return ended


def test_threads_are_passed_on(cell: Make, local: Callable[..., Local]) -> None:
    cells = [cell("good", n) for n in range(3)] + [cell("good", 3, threads=2)]
    ended = outcomes(local(cores=2), cells, Resources(jobs=2, cpus=1))
    assert set(ended.values()) == {Outcome.DONE}
    assert [starts(c) for c in cells] == [["1 -"], ["1 -"], ["1 -"], ["2 -"]], "as it began"


def test_an_interrupted_run_gets_no_more_threads_than_there_are_cores(
    cell: Make, local: Callable[..., Local]
) -> None:
    begun = cell("good", threads=64)
    outcomes(local(cores=2), [begun], Resources())
    assert starts(begun) == ["2 -"]


def test_devices_are_passed_on(cell: Make, local: Callable[..., Local]) -> None:
    launcher = local(cores=4, devices=["GPU-a", "GPU-b"])
    cells = [cell("good", n) for n in range(4)]
    given = launcher.fitted(cells, Resources(gpus=0.5))
    assert (given.jobs, given.cpus) == (4, 1)
    outcomes(launcher, cells, given)
    assert {starts(c)[0] for c in cells} <= {"1 GPU-a", "1 GPU-b"}
    two = cell("good", 9)
    outcomes(launcher, [two], Resources(gpus=2))
    assert starts(two) == ["4 GPU-a,GPU-b"]
    none = cell("good", 10)
    outcomes(launcher, [none], Resources(gpus=0))
    assert starts(none) == ["4 "], "a run without devices does not see any"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not offer it")
def test_a_run_whose_nursery_is_killed_saves_and_ends(
    cell: Make, local: Callable[..., Local]
) -> None:
    waiting = cell("waiting")
    events = local().run([waiting], Resources(jobs=1, cpus=1))
    next(events)
    until(lambda: (waiting.path / "ready").exists())
    (nursery,) = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and _parent(process) == os.getpid() and _is_nursery(process)
    ]
    os.kill(nursery, signal.SIGKILL)
    assert next(events).outcome is Outcome.FAILED
    until(lambda: (waiting.path / "result.json").exists())
    assert (waiting.path / "result.json").read_text() == '{"status": "partial"}'


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_nursery(process: Path) -> bool:
    return b"clbench.launch.engines.nursery" in (process / "cmdline").read_bytes()


def test_a_closed_launcher_leaves_nothing_running(cell: Make, local: Callable[..., Local]) -> None:
    waiting = cell("waiting")
    events = local().run([waiting], Resources(jobs=1, cpus=1))
    assert next(events).outcome is None
    until(lambda: (waiting.path / "ready").exists())
    events.close()  # type: ignore[attr-defined]
    assert (waiting.path / "result.json").read_text() == '{"status": "partial"}'


def test_a_program_that_is_not_there_fails_and_says_so(
    cell: Make, records: Records, capfd: pytest.CaptureFixture[str]
) -> None:
    launcher = Local(records, Machine(1, 2**33), ["/nowhere/python"])
    (event,) = [e for e in launcher.run([cell("good")], Resources()) if e.outcome is not None]
    assert (event.outcome, event.code) == (Outcome.FAILED, 127)
    assert "cannot start toy/good/seed0-0123abcd" in capfd.readouterr().err
