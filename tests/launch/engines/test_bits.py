"""Real runs that are disturbed in the middle of a task end with the bits of undisturbed ones."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench import config
from clbench.launch.cells import Cell, Event, Launcher, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.local import Local
from clbench.launch.engines.ray import Ray
from clbench.launch.engines.slurm import Slurm
from clbench.launch.grid import make_cells
from clbench.launch.plan import plan
from clbench.launch.records import Records
from tests.engine.rundir.test_resuming import outcome
from tests.launch.conftest import Noted, until
from tests.launch.engines.slurm_cluster import Cluster, missing
from tests.small_runs import write_tasks

pytestmark = pytest.mark.slow
ONE = Resources(jobs=1, cpus=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bits")
    write_tasks(folder / "tasks")
    return folder


def planned(home: Path, runs_dir: Path) -> Cell:
    """A run of two tasks that saves after every step."""
    overrides = {
        **config.backbone_settings("mini"),
        "data_root": str(home / "cache"),
        "device": "cpu",
        "train.steps": 60,
        "train.batch_size": 6,
        "checkpoint_every.steps": 1,
    }
    ((cell, _),) = make_cells(
        plan(f"folder:{home / 'tasks'}", ["finetune"], [0], overrides=overrides), runs_dir
    )
    return cell


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> dict[str, Any]:
    cell = planned(home, home / "whole")
    assert Drive(Local(Records(home / "whole")), Records(home / "whole")).run([cell], ONE) == []
    return outcome(home / "whole")


class Disturber(Noted):
    """A watcher that disturbs a run once, in the middle of its second task."""

    def __init__(self, cell: Cell, disturb: Callable[[int], None]) -> None:
        super().__init__()
        self._cell, self._disturb, self._done = cell, disturb, False

    def event(self, event: Event, left: int) -> None:
        super().event(event, left)
        if event.outcome is None and not self._done:
            self._done = True
            checkpoints = self._cell.path / "checkpoints"
            until(lambda: bool(list(checkpoints.glob("task-001-step-*.json"))))
            owner = json.loads((self._cell.path / ".owner.json").read_text())
            self._disturb(owner["pid"])


def disturbed(
    make: Callable[[Records], Launcher], home: Path, name: str, disturb: Callable[[int], None]
) -> tuple[Disturber, dict[str, Any]]:
    runs_dir = home / name
    cell, records = planned(home, runs_dir), Records(runs_dir)
    watcher = Disturber(cell, disturb)
    assert Drive(make(records), records, 1, watcher).run([cell], ONE) == []
    result = json.loads((cell.path / "result.json").read_text())
    assert len(result["provenance"]["resumed"]) == 1, "it was disturbed and went on"
    assert " of task1" in result["provenance"]["resumed"][0]
    return watcher, outcome(runs_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_local(home: Path, undisturbed: dict[str, Any], number: int) -> None:
    _, found = disturbed(Local, home, f"local-{number}", lambda pid: os.kill(pid, number))
    assert found == undisturbed


def test_ray(home: Path, undisturbed: dict[str, Any]) -> None:
    ray = pytest.importorskip("ray")
    try:
        watcher, found = disturbed(Ray, home, "ray", lambda pid: os.kill(pid, signal.SIGKILL))
    finally:
        ray.shutdown()
    assert found == undisturbed
    assert watcher.of("finetune") == [("failed", 1), ("done", 1)]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    if absent := missing():
        pytest.skip(f"needs {', '.join(absent)}")
    with Cluster(tmp_path) as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.settings))
        yield cluster


def test_slurm(home: Path, undisturbed: dict[str, Any], cluster: Cluster) -> None:
    def requeue(pid: int) -> None:
        cluster.said("scontrol", "requeue", *cluster.jobs())

    watcher, found = disturbed(lambda records: Slurm(records, pause=0.5), home, "slurm", requeue)
    assert found == undisturbed
    assert watcher.of("finetune") == [("done", 2)], "it went back into the queue by itself"
