"""How a folder of runs stands, read without anybody who drives it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.engine.rundir.ownership import NOTE, Owner, Ownership
from clbench.launch.cells import Outcome, Resources
from clbench.launch.records import CellRecord, Records
from clbench.launch.standing import holder, overview, standing, time_left
from tests import made_up
from tests.launch.conftest import make_cell

KEY = "mini/nusa/seed0-0123abcd"


def begin(path: Path, learned: int, **changes: Any) -> None:
    """A run that has learned so many of three tasks, at 20 s each."""
    values = [row if t <= learned else [None] * len(row) for t, row in enumerate(made_up.VALUES)]
    result = made_up.make_result(
        values=values,
        status="complete" if learned == 3 else "partial",
        training_seconds=18.0 * learned,
        evaluation_seconds=2.0 * learned,
        overhead_seconds=0.0,
    )
    settings = RunSettings.model_validate({"train": {"steps": 100, **changes}})
    content = result.model_copy(update={"config": settings.model_dump(mode="json")})
    content.save(path / "result.json")


def log(path: Path, *records: dict[str, Any], end: str = "") -> None:
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (path / "metrics.jsonl").write_text(text + end)


def test_a_running_cell_tells_task_step_accuracy_and_time_left(tmp_path: Path) -> None:
    path = tmp_path / KEY
    begin(path, 1)
    log(path, {"task": 2, "step": 20, "loss": 1.0}, {"task": 2, "step": 50}, end='{"task": 2, "st')
    with _owned(path):
        found = standing(KEY, path, CellRecord(where="2 threads"))
    assert (found.state, found.where) == ("running", "2 threads")
    assert (found.learned, found.tasks, found.task) == (1, 3, "clocks")
    assert (found.step, found.steps) == (50, 100)
    assert found.accuracy == pytest.approx((0.8 + 0.4 + 0.5) / 3)
    assert found.seconds == 20.0
    assert found.eta == pytest.approx(20.0 * 1.5)


def _owned(path: Path) -> Any:
    class Owned:
        def __enter__(self) -> None:
            self.owner = Ownership(path)
            self.owner.acquire()

        def __exit__(self, *_: object) -> None:
            self.owner.release()

    return Owned()


def test_losses_of_the_task_before_are_not_steps_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / KEY
    begin(path, 2)
    log(path, {"task": 2, "step": 100})
    found = standing(KEY, path, CellRecord())
    assert (found.state, found.task, found.step) == ("waiting", "flags", 0)


def test_steps_that_depend_on_the_data_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / KEY
    begin(path, 1, epochs=2)
    log(path, {"task": 2, "step": 20})
    found = standing(KEY, path, CellRecord())
    assert (found.step, found.steps) == (20, None)


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (CellRecord(), "waiting"),
        (CellRecord(state=Outcome.PREEMPTED), "waiting"),
        (CellRecord(state=Outcome.FAILED, reason="why"), "failed"),
        (CellRecord(state=Outcome.MISTAKE), "mistake"),
        (CellRecord(state=Outcome.DIVERGED), "mistake"),
        (CellRecord(state="running", started="2020-01-01T00:00:00+00:00"), "waiting"),
    ],
)
def test_what_is_not_running_has_the_state_of_its_record(
    tmp_path: Path, record: CellRecord, state: str
) -> None:
    assert standing(KEY, tmp_path / KEY, record).state == state
    begin(tmp_path / KEY, 3)
    assert standing(KEY, tmp_path / KEY, record).state == "done", "the result counts"


def test_a_cell_that_was_just_started_counts_as_running(tmp_path: Path) -> None:
    records = Records(tmp_path)
    cell = make_cell(tmp_path, "good")
    records.started(cell, "local", "1 thread")
    assert standing(cell.key, cell.path, records.of(cell.key)).state == "running"
    records.ended(cell, Outcome.PREEMPTED, 143)
    assert standing(cell.key, cell.path, records.of(cell.key)).state == "waiting"


def test_a_holder_is_told_without_touching_the_lock(tmp_path: Path) -> None:
    assert holder(tmp_path) == ""
    owner = Ownership(tmp_path)
    owner.acquire()
    assert holder(tmp_path).startswith(f"process {os.getpid()} on {socket.gethostname()}")
    owner.release()
    assert holder(tmp_path) == ""


@pytest.mark.parametrize(("age", "held"), [(5, True), (600, False)])
def test_another_host_holds_what_it_touched_lately(tmp_path: Path, age: int, held: bool) -> None:
    note = tmp_path / NOTE
    note.write_text(json.dumps({"pid": 1, "host": "far", "since": "then", "boot": "other"}))
    touched = note.stat().st_mtime - age
    os.utime(note, (touched, touched))
    assert bool(holder(tmp_path)) is held


def test_a_process_of_this_host_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    here = Owner.current()
    content = {"pid": 2**22 + 1, "host": here.host, "since": "then", "boot": here.boot}
    (tmp_path / NOTE).write_text(json.dumps(content))
    assert holder(tmp_path) == ""


def test_the_time_left_is_shared_by_what_runs_at_a_time(tmp_path: Path) -> None:
    for seed, learned in ((0, 3), (1, 1), (2, 1)):
        begin(tmp_path / f"mini/nusa/seed{seed}-0", learned)
    records = Records(tmp_path)
    cells = [make_cell(tmp_path, "good")]
    records.save_plan(cells, "local", Resources())
    with _owned(tmp_path / "mini/nusa/seed1-0"), _owned(tmp_path / "mini/nusa/seed2-0"):
        found = overview(tmp_path)
    assert found.counts == {"done": 1, "running": 2, "waiting": 1, "failed": 0, "mistake": 0}
    assert found.eta == pytest.approx((40 + 40 + 60) / 2)
    assert time_left([c for c in found.cells if c.state == "done"]) == 0.0
    assert found.plain()["cells"][0]["key"] == "mini/nusa/seed0-0"


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="no runs in"):
        overview(tmp_path)


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".launch" / "plans" / "0123.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ClbenchError, match=r"0123\.json is damaged"):
        overview(tmp_path)
