"""Tasks of a real Ray: workers and nodes that die, drivers that stop, folders that are apart."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Cell, Outcome, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.ray import Ray, Token
from clbench.launch.records import Records
from tests.launch.conftest import AtWork, starts, until

Make = Callable[..., Cell]
ONE = Resources(cpus=1)


@pytest.mark.slow
def test_a_node_that_is_removed_costs_no_attempt(
    cell: Make, ray_launcher: Callable[..., Ray], records: Records, ray_cluster: Any
) -> None:
    node = ray_cluster.add_node(num_cpus=1, object_store_memory=10**8)
    launcher = ray_launcher()
    until(lambda: launcher.ray.cluster_resources().get("CPU") == 2)
    cells = [cell("waiting"), cell("waiting", 1)]

    def remove() -> None:
        until(lambda: all((c.path / "ready").exists() for c in cells))
        ray_cluster.remove_node(node, allow_graceful=False)
        until(lambda: any("saved" in records.log(c).read_text() for c in cells))
        for one in cells:
            (one.path / "go").touch()

    noted = AtWork(cells[1], remove)
    assert Drive(launcher, records, 0, noted).run(cells, launcher.fitted(cells, ONE)) == []
    assert sorted(outcome for outcome, _ in noted.of("waiting")) == ["done", "done", "preempted"]
    assert sorted(len(starts(c)) for c in cells) == [1, 2], "the other was left alone"


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_run_along_and_costs_no_attempt(
    cell: Make, ray_launcher: Callable[..., Ray], records: Records
) -> None:
    waiting = cell("waiting")
    launcher = ray_launcher()

    def kill() -> None:
        (worker,) = [
            int(pid.name)
            for pid in Path("/proc").iterdir()
            if pid.name.isdigit() and _command(pid).startswith("ray::attempt")
        ]
        os.kill(worker, signal.SIGKILL)
        until(lambda: "saved" in records.log(waiting).read_text())

    noted = AtWork(waiting, kill)
    given = launcher.fitted([waiting], ONE)
    assert Drive(launcher, records, 0, noted).run([waiting], given) == []
    assert [outcome for outcome, _ in noted.of("waiting")] == ["preempted", "done"]


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
def test_nodes_without_the_folder_get_and_give_back_what_is_in_it(
    cell: Make,
    ray_launcher: Callable[..., Ray],
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Token, "__enter__", lambda self: Path("/nowhere/token"))
    cells = [cell("preempted"), cell("good"), cell("raising")]
    launcher = ray_launcher()
    failures = Drive(launcher, records, 0).run(cells, launcher.fitted(cells, ONE))
    assert [failure.cell.method for failure in failures] == ["raising"]
    assert [len(starts(c)) for c in cells] == [3, 1, 1], "it saw what was there before"
    assert all(c.finished() for c in cells[:2])
    assert "start 3 of preempted" in records.log(cells[0]).read_text()
    assert list(Path(tempfile.gettempdir()).glob("clbench-*/toy/preempted")) == []


@pytest.mark.slow
def test_more_than_the_cluster_has_is_refused(cell: Make, ray_launcher: Callable[..., Ray]) -> None:
    with pytest.raises(ClbenchError, match="--gpus 1, but the Ray cluster has 0"):
        ray_launcher().fitted([cell("good")], Resources(gpus=1))


@pytest.mark.slow
def test_an_interrupted_driver_lets_runs_save(
    cell: Make, ray_launcher: Callable[..., Ray], records: Records
) -> None:
    waiting = cell("waiting")

    def interrupt() -> None:
        raise KeyboardInterrupt

    launcher = ray_launcher()
    given = launcher.fitted([waiting], ONE)
    with pytest.raises(KeyboardInterrupt):
        Drive(launcher, records, 0, AtWork(waiting, interrupt)).run([waiting], given)
    assert "saved" in records.log(waiting).read_text()
    assert records.of(waiting.key).state == Outcome.PREEMPTED
    assert Drive(launcher, records, 0).run([waiting], given) == []
    assert len(starts(waiting)) == 2


def test_only_what_still_runs_is_cancelled(records: Records) -> None:
    """Ray puts a task's answer in place before it takes the task off its list."""

    class Library:
        class exceptions:  # noqa: N801
            RayError = RuntimeError

        cancelled: ClassVar[list[str]] = []

        def get(self, reference: object) -> None: ...

        def wait(self, references: list[str], **_: object) -> tuple[list[str], list[str]]:
            return references[:1], references[1:]

        def cancel(self, reference: str, *, force: bool) -> None:
            assert force
            self.cancelled.append(reference)

    launcher = object.__new__(Ray)
    launcher.ray, launcher.records = Library(), records
    launcher._stop({"ended": Mock(), "running": Mock()}, Mock())
    assert Library.cancelled == ["running"]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a cluster that asks for a token, and the home folder with the token."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(home)}
    ray = (sys.executable, "-m", "ray.scripts.scripts")
    subprocess.run(
        [*ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True
    )
    start = ["start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    start += ["--include-dashboard=false", "--object-store-memory=100000000"]
    with subprocess.Popen(
        [*ray, *start], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = ""
        assert process.stdout is not None
        while not (found := re.search(r"--address='(.+)'", said)) and (
            line := process.stdout.readline()
        ):
            said += line
        assert found, said
        yield found[1], home
        process.terminate()  # what it has started may keep its output open for minutes


@pytest.mark.slow
def test_the_token_of_the_first_machine_opens_the_cluster(
    head: tuple[str, Path], tmp_path: Path
) -> None:
    address, home = head
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("another")
    script = (
        "import sys\n"
        "from clbench.core.errors import ClbenchError\n"
        "from clbench.launch.engines.ray import _connected\n"
        "try: print(_connected(sys.argv[1]).cluster_resources()['CPU'])\n"
        "except ClbenchError as error: print(error)"
    )

    def said(home: Path, **more: str) -> str:
        environment = {**os.environ, "HOME": str(home), **more}
        command = [sys.executable, "-c", script, address]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    assert said(home, RAY_AUTH_MODE="token") == "1.0"
    assert "is not set here" in said(home)
    assert "or another one" in said(tmp_path, RAY_AUTH_MODE="token")
    assert "has none" in said(tmp_path / "empty", RAY_AUTH_MODE="token")
