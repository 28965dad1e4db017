"""Real runs that are disturbed in the middle of a task end with the bits of undisturbed ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clbench import config
from clbench.cli.app import app
from clbench.launch import make
from clbench.launch.cells import Cell, Event, Resources, read_status
from clbench.launch.driving import Drive
from clbench.launch.engines.local import Local
from clbench.launch.engines.machine import Machine
from clbench.launch.engines.ray import Ray
from clbench.launch.engines.slurm import Slurm
from clbench.launch.grid import make_cells
from clbench.launch.plan import plan
from clbench.launch.records import Records
from tests.engine.rundir.test_resuming import outcome
from tests.launch.conftest import Noted, until
from tests.launch.engines.slurm_cluster import Cluster
from tests.small_runs import write_tasks

pytestmark = pytest.mark.slow
ONE = Resources(jobs=1, cpus=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bits")
    write_tasks(folder / "tasks")
    return folder


def planned(home: Path, name: str) -> Cell:
    """A run of two tasks that saves after every other step, in a folder of its own."""
    overrides = {
        **config.backbone_settings("mini"),
        "data_root": str(home / "cache"),
        "device": "cpu",
        "train.steps": 40,
        "train.batch_size": 6,
        "checkpoint_every.steps": 2,
    }
    ((cell, _),) = make_cells(
        plan(f"folder:{home / 'tasks'}", ["finetune"], [0], overrides=overrides), home / name
    )
    return cell


def in_second_task(cell: Cell) -> int:
    """Wait until a run makes its way through its second task; returns its process."""

    def saved() -> set[Path]:
        return set((cell.path / "checkpoints").glob("task-001-step-*.json"))

    before = saved()
    until(lambda: bool(saved() - before))
    pid: int = json.loads((cell.path / ".owner.json").read_text())["pid"]
    return pid


class Disturber(Noted):
    """A watcher that disturbs runs, each once, in the middle of their second tasks."""

    def __init__(self, disturb: Mapping[str, Callable[[int], object]]) -> None:
        super().__init__()
        self._disturb = dict(disturb)

    def event(self, event: Event, left: int) -> None:
        super().event(event, left)
        if event.outcome is None and (disturb := self._disturb.pop(event.cell.key, None)):
            disturb(in_second_task(event.cell))


def resumed(cell: Cell) -> list[str]:
    """Where a run was taken up again."""
    found: list[str] = json.loads((cell.path / "result.json").read_text())["provenance"]["resumed"]
    return found


@pytest.fixture(scope="module")
def local(home: Path) -> dict[str, Cell]:
    """Runs of the local launcher: whole, asked to stop, and killed."""
    cells = {name: planned(home, name) for name in ("whole", "stopped", "killed")}
    keyed = {name: replace(cell, key=f"{name}/{cell.key}") for name, cell in cells.items()}
    disturb = {
        keyed["stopped"].key: lambda pid: os.kill(pid, signal.SIGTERM),
        keyed["killed"].key: lambda pid: os.kill(pid, signal.SIGKILL),
    }
    records = Records(home)
    launcher = Local(records, Machine(1, 2**34))
    assert Drive(launcher, records, 1, Disturber(disturb)).run([*keyed.values()], ONE) == []
    return cells


@pytest.fixture(scope="module")
def undisturbed(home: Path, local: dict[str, Cell]) -> dict[str, Any]:
    return outcome(home / "whole")


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_local(home: Path, local: dict[str, Cell], undisturbed: dict[str, Any], name: str) -> None:
    (place,) = resumed(local[name])
    assert " of task1" in place
    assert resumed(local["whole"]) == []
    assert outcome(home / name) == undisturbed


DRIVER = """
import json, sys
from pathlib import Path
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.ray import Ray
from clbench.launch.records import Records

cell, home, address = json.loads(sys.argv[1])
records = Records(Path(home))
Drive(Ray(records, address), records).run([Cell.of(cell)], Resources(jobs=1, cpus=1))
"""


def test_ray(home: Path, undisturbed: dict[str, Any], ray_cluster: Any) -> None:
    """The driver is killed, then the run of the next driver."""
    cell, records = planned(home, "ray"), Records(home / "ray")
    job = json.dumps([cell.plain(), str(home / "ray"), ray_cluster.address])
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, job])
    pid = in_second_task(cell)
    driver.kill()
    driver.wait()
    until(lambda: not running(pid))
    assert read_status(cell.path) == "partial"

    watcher = Disturber({cell.key: lambda pid: os.kill(pid, signal.SIGKILL)})
    assert Drive(Ray(records, ray_cluster.address), records, 1, watcher).run([cell], ONE) == []
    assert watcher.of("finetune") == [("failed", 1), ("done", 1)]
    assert watcher.codes["finetune"] == [-signal.SIGKILL, 0]
    assert [" of task1" in place for place in resumed(cell)] == [True, True]
    assert outcome(home / "ray") == undisturbed


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def invoke(arguments: Sequence[str]) -> str:
    """What a command prints that succeeds."""
    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_slurm(
    home: Path, undisturbed: dict[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitted by a driver that leaves, requeued, and watched to its end by the next one."""
    monkeypatch.setitem(make.LAUNCHERS, "slurm", lambda records, options: Slurm(records, pause=0.5))
    cell, runs = planned(home, "slurm"), str(home / "slurm")
    options = list(cell.command[1:])
    method, seed = options.index("--method"), options.index("--seed")
    options[method], options[seed] = "--methods", "--seeds"
    command = ["compare", *options, "--launcher", "slurm"]
    told = invoke([*command, "--detach"])
    assert "1 run submitted; the jobs stay in Slurm's queue" in told
    assert "scancel --name=clbench-" in told
    in_second_task(cell)
    cluster.said("scontrol", "requeue", *cluster.jobs())
    assert json.loads(invoke(["status", runs, "--json"]))["counts"]["done"] == 0
    assert "0 runs submitted" in invoke([*command, "--detach"]), "it is in the queue"
    assert "finetune" in invoke(command), "the table"
    assert cluster.jobs() == {}
    (place,) = resumed(cell)
    assert " of task1" in place
    assert outcome(home / "slurm") == undisturbed
    assert "0 runs submitted" in invoke([*command, "--detach"]), "nothing is left to do"
