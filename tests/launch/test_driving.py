"""What becomes of cells that succeed, fail, are killed, or are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from clbench.launch.cells import Cell, Outcome
from clbench.launch.driving import Drive, told_once
from clbench.launch.engines.local import Local
from clbench.launch.records import Records
from clbench.launch.standing import overview
from tests.launch.conftest import ONE, PROGRAM, TWO, Noted, starts, until

Make = Callable[..., Cell]


def never(seconds: float) -> None:
    raise AssertionError("nothing is made elsewhere, so nothing is waited for")


def test_each_ending_has_its_consequence_and_none_keeps_the_others_from_being_made(
    cell: Make, local: Callable[..., Local], records: Records
) -> None:
    names = ("raising", "killed", "preempted", "mistake", "empty", "good", "diverging")
    cells = [cell(name) for name in names]
    noted = Noted()
    failures = Drive(local(), records, 2, noted, never).run(cells, TWO)

    assert noted.of("good") == [("done", 3)]
    assert noted.of("killed") == [("failed", 2), ("done", 2)]
    assert noted.of("preempted") == [("preempted", 3), ("preempted", 3), ("done", 3)]
    assert noted.of("mistake") == [("mistake", 3)]
    assert noted.of("diverging") == [("diverged", 3)]
    assert noted.of("raising") == [("failed", 2), ("failed", 1), ("failed", 0)]
    assert noted.of("empty") == [("failed", 2), ("failed", 1), ("failed", 0)], "no result"
    assert [len(starts(c)) for c in cells] == [3, 2, 3, 1, 3, 1, 1]

    told = {failure.cell.method: failure.told() for failure in failures}
    assert told.keys() == {"raising", "mistake", "empty", "diverging"}
    assert told["mistake"] == "mistake on toy, seed 0: unknown method 'nusaa'"
    assert told["diverging"] == "diverging on toy, seed 0: the loss became nan at step 3"
    first, *lines = told["raising"].splitlines()
    assert first.startswith("raising on toy, seed 0: ended with exit code 1; its log, ")
    assert str(records.log(cells[0])) in first
    assert lines[-1] == "    ArithmeticError: the sums do not add up"
    assert "start 3 of raising" in told["raising"], "attempts share the log"


def test_what_keeps_many_cells_from_being_made_is_told_once(
    cell: Make, local: Callable[..., Local], records: Records
) -> None:
    cells = [cell(name, seed) for seed in range(3) for name in ("mistake", "raising")]
    cells += [cell("empty")]
    failures = Drive(local(), records, 0).run(cells, TWO)
    assert len(failures) == 7
    told = {text.split()[0]: text for text in told_once(failures)}
    assert told.keys() == {"mistake", "raising", "empty"}
    assert told["mistake"] == "mistake on toy, seed 0, and 2 other runs: unknown method 'nusaa'"
    first = told["raising"].splitlines()[0]
    assert first.startswith("raising on toy, seed 0, and 2 other runs: ended with exit code 1; ")
    assert told["empty"].startswith("empty on toy, seed 0: ended with exit code 0; its log, ")


def test_the_same_cells_again_are_only_made_where_something_is_missing(
    cell: Make, local: Callable[..., Local], records: Records
) -> None:
    cells = [cell("good"), cell("raising")]
    assert len(Drive(local(), records, 0).run(cells, ONE)) == 1
    assert records.of(cells[1].key).failures == 1
    missing = [c for c in cells if not c.finished()]
    assert missing == [cells[1]]
    assert len(Drive(local(), records, 1).run(missing, ONE)) == 1
    assert [len(starts(c)) for c in cells] == [1, 3]


DRIVER = """
import json, sys
from pathlib import Path
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive, told_once
from clbench.launch.engines.local import Local
from clbench.launch.engines.machine import Machine
from clbench.launch.records import Records

cells, runs, program = json.loads(sys.argv[1])
records = Records(Path(runs))
launcher = Local(records, Machine(2, 2**33), program)
Drive(launcher, records).run([Cell.of(c) for c in cells], Resources(jobs=2, cpus=1))
"""


def drive_until_ready(cells: list[Cell], records: Records) -> subprocess.Popen[str]:
    """A driver in a process of its own, once its first cell is at work."""
    job = json.dumps([[c.plain() for c in cells], str(records.runs_dir), PROGRAM])
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, job], stderr=subprocess.PIPE, text=True
    )
    until(lambda: (cells[0].path / "ready").exists() or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()[1]
    return driver


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_cells_end_gracefully_with_their_driver_and_go_on_with_the_next(
    number: signal.Signals, cell: Make, local: Callable[..., Local], records: Records
) -> None:
    cells = [cell("waiting"), cell("good")]
    driver = drive_until_ready(cells, records)
    driver.send_signal(number)
    driver.communicate()
    result = cells[0].path / "result.json"
    until(lambda: result.exists() and "partial" in result.read_text())
    if number == signal.SIGINT:
        assert records.of(cells[0].key).state == Outcome.PREEMPTED
    left = [c for c in cells if not c.finished()]
    assert cells[0] in left
    assert Drive(local(), records).run(left, TWO) == []
    assert len(starts(cells[0])) == 2
    assert all(c.finished() for c in cells)


def test_a_cell_that_another_process_makes_is_waited_for(
    cell: Make, local: Callable[..., Local], records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clbench.launch.engines import local as module

    mine, other = cell("good"), cell("good", 1)
    holding = {other.path}
    monkeypatch.setattr(module, "holder", lambda path: "somebody" if path in holding else "")
    pauses: list[float] = []

    def finish(seconds: float) -> None:
        pauses.append(seconds)
        other.path.mkdir(parents=True, exist_ok=True)
        (other.path / "result.json").write_text(json.dumps({"status": "complete"}))
        holding.clear()

    noted = Noted()
    assert Drive(local(), records, 2, noted, finish).run([other, mine], TWO) == []
    assert len(pauses) == 1
    endings = ["elsewhere", "done", "elsewhere", "done"]
    assert [outcome for outcome, _ in noted.of("good")] == endings
    assert not (other.path / "starts").exists(), "it was never started here"


def test_a_plan_tells_which_cells_wait(
    cell: Make, local: Callable[..., Local], records: Records
) -> None:
    cells = [cell("good"), cell("raising"), cell("good", 1)]
    records.save_plan(cells, "local", TWO)
    Drive(local(), records, 0).run(cells[:2], ONE)
    found = overview(records.runs_dir)
    states = {standing.key: standing.state for standing in found.cells}
    assert states == dict(zip([c.key for c in cells], ["done", "failed", "waiting"], strict=True))
    assert found.counts == {"done": 1, "running": 0, "waiting": 1, "failed": 1, "mistake": 0}
    records.drop_plan(cells)
    assert records.plans() == []
