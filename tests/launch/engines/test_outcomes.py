"""The same five cells with each launcher: good, raising, killed, preempted, without its driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from clbench.launch.cells import Cell, Launcher, Resources
from clbench.launch.driving import Drive
from clbench.launch.records import Records
from tests.launch.conftest import PROGRAM, Noted, starts, until

pytestmark = pytest.mark.slow
Make = Callable[..., Cell]
ONE = Resources(jobs=2, cpus=1)
AGAIN = [("preempted", 2, 143), ("preempted", 2, 143), ("done", 2, 0)]


@pytest.fixture(params=["local", "ray", "slurm"])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    names = {"local": "local", "ray": "ray_launcher", "slurm": "slurm"}
    made: Launcher = request.getfixturevalue(names[request.param])()
    return made


def test_each_ending_has_its_consequence(cell: Make, launcher: Launcher, records: Records) -> None:
    cells = [cell(name) for name in ("good", "raising", "killed", "preempted", "mistake")]
    noted = Noted()
    failures = Drive(launcher, records, 1, noted).run(cells, launcher.fitted(cells, ONE))
    seen = {
        name: [(*end, code) for end, code in zip(noted.of(name), codes, strict=True)]
        for name, codes in noted.codes.items()
    }
    assert seen == {
        "good": [("done", 2, 0)],
        "raising": [("failed", 1, 1), ("failed", 0, 1)],
        "killed": [("failed", 1, -9), ("done", 1, 0)],
        "preempted": AGAIN[-1:] if launcher.stays else AGAIN,  # it requeues itself
        "mistake": [("mistake", 2, 2)],
    }
    assert [len(starts(c)) for c in cells] == [1, 2, 2, 3, 1]
    assert starts(cells[0])[0].startswith("1 "), "its threads"
    states = [records.of(c.key).state for c in cells]
    assert states == ["done", "failed", "done", "done", "mistake"]
    told = {failure.cell.method: failure.told() for failure in failures}
    assert told.keys() == {"raising", "mistake"}
    assert "ArithmeticError: the sums do not add up" in told["raising"]
    assert told["mistake"] == "mistake on toy, seed 0: unknown method 'nusaa'"


DRIVER = """
import json, sys
from pathlib import Path
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive
from clbench.launch.records import Records

name, cells, runs, program, address = json.loads(sys.argv[1])
cells, records = [Cell.of(c) for c in cells], Records(Path(runs))
if name == "local":
    from clbench.launch.engines.local import Local
    launcher = Local(records, program=program)
elif name == "ray":
    from clbench.launch.engines.ray import Ray
    launcher = Ray(records, address, program)
else:
    from clbench.launch.engines.slurm import Slurm
    launcher = Slurm(records, (), program, pause=0.3)
Drive(launcher, records).run(cells, launcher.fitted(cells, Resources(jobs=2, cpus=1)))
"""


def test_a_driver_that_was_killed_is_started_again(
    cell: Make, launcher: Launcher, records: Records, request: pytest.FixtureRequest
) -> None:
    """Runs end with their driver, and go on with the next; Slurm's jobs are found again."""
    cells = [cell("waiting"), cell("good")]
    address = request.getfixturevalue("ray_cluster").address if launcher.name == "ray" else None
    told: list[Any] = [launcher.name, [c.plain() for c in cells], str(records.runs_dir), PROGRAM]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # nobody has to look for them
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps([*told, address])], env=environment
    )
    until(lambda: (cells[0].path / "ready").exists() or driver.poll() is not None)
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    if launcher.stays:
        assert not (cells[0].path / "result.json").exists(), "it is still at work"
        (cells[0].path / "go").touch()
    else:
        until(lambda: "saved" in records.log(cells[0]).read_text())
        assert json.loads((cells[0].path / "result.json").read_text()) == {"status": "partial"}
    left = [c for c in cells if not c.finished()]
    noted = Noted()
    assert Drive(launcher, records, 0, noted).run(left, launcher.fitted(left, ONE)) == []
    assert noted.of("waiting") == [("done", 1)]
    assert noted.codes["waiting"] == [0]
    assert len(starts(cells[0])) == (1 if launcher.stays else 2)
    assert all(c.finished() for c in cells)
    assert driver.returncode == -signal.SIGKILL
