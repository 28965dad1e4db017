"""Array jobs of a real Slurm: requeued, preempted, out of time, killed, without their driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.slurm import JOB, Slurm
from clbench.launch.records import Records
from clbench.launch.standing import overview
from tests.launch.conftest import PROGRAM, Noted, starts, until
from tests.launch.engines.slurm_cluster import Cluster, missing

Make = Callable[..., Cell]
ONE = Resources(cpus=1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if absent := missing():
        pytest.skip(f"needs {', '.join(absent)}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def slurm(
    cluster: Cluster, records: Records, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Slurm]]:
    monkeypatch.setenv("SLURM_CONF", str(cluster.settings))
    yield lambda *options: Slurm(records, options, PROGRAM, pause=0.3)
    cluster.said("scancel", *cluster.jobs())
    until(lambda: not cluster.jobs())


class AtStart(Noted):
    """A watcher that does something once, when the first cell is at work."""

    def __init__(self, cell: Cell, action: Callable[[], object]) -> None:
        super().__init__()
        self._cell, self._action, self._done = cell, action, False

    def event(self, event: object, left: int) -> None:
        super().event(event, left)  # type: ignore[arg-type]
        if not self._done:
            self._done = True
            until(lambda: (self._cell.path / "ready").exists())
            self._action()


@pytest.mark.slow
def test_each_ending_has_its_consequence(
    cell: Make, slurm: Callable[..., Slurm], records: Records
) -> None:
    cells = [cell(name) for name in ("good", "raising", "killed", "preempted", "mistake")]
    noted = Noted()
    failures = Drive(slurm(), records, 1, noted).run(cells, ONE)
    assert noted.of("good") == [("done", 2)]
    assert noted.of("raising") == [("failed", 1), ("failed", 0)]
    assert noted.of("killed") == [("failed", 1), ("done", 1)]
    assert noted.of("preempted") == [("done", 2)], "it went back into the queue by itself"
    assert noted.of("mistake") == [("mistake", 2)]
    assert [len(starts(c)) for c in cells] == [1, 2, 2, 3, 1]
    told = {failure.cell.method: str(failure) for failure in failures}
    assert told.keys() == {"raising", "mistake"}
    assert "ArithmeticError: the sums do not add up" in told["raising"]
    assert records.of(cells[0].key).where.count("job") == 1


@pytest.mark.slow
def test_a_requeued_job_saves_and_goes_on(
    cell: Make, slurm: Callable[..., Slurm], records: Records, cluster: Cluster
) -> None:
    waiting = cell("waiting")
    noted = AtStart(waiting, lambda: cluster.said("scontrol", "requeue", *cluster.jobs()))
    assert Drive(slurm(), records, 0, noted).run([waiting], ONE) == []
    assert len(starts(waiting)) == 2
    assert "saved" in records.log(waiting).read_text()
    assert noted.of("waiting") == [("done", 1)]


@pytest.mark.slow
def test_a_preempted_job_saves_and_goes_on(
    cell: Make, slurm: Callable[..., Slurm], records: Records, cluster: Cluster
) -> None:
    waiting = cell("waiting")
    urgent = [
        "sbatch",
        "--partition=high",
        "--cpus-per-task=2",
        "--output=/dev/null",
        "--wrap=true",
    ]
    noted = AtStart(waiting, lambda: cluster.said(*urgent))
    assert Drive(slurm(), records, 0, noted).run([waiting], ONE) == []
    assert len(starts(waiting)) == 2
    assert "saved" in records.log(waiting).read_text()
    assert noted.of("waiting") == [("done", 1)]


@pytest.mark.slow
def test_a_job_near_its_time_limit_saves_and_goes_on(
    cell: Make, slurm: Callable[..., Slurm], records: Records
) -> None:
    waiting = cell("waiting")
    limited = Resources(cpus=1, time=60)  # sooner than the warning, which then comes at once
    assert Drive(slurm(), records, 0).run([waiting], limited) == []
    assert len(starts(waiting)) == 2
    assert "saved" in records.log(waiting).read_text()


@pytest.mark.slow
def test_a_job_that_vanishes_is_submitted_again(
    cell: Make, slurm: Callable[..., Slurm], records: Records
) -> None:
    waiting = cell("waiting")

    def kill() -> None:
        """The job's own process, and with it all that Slurm knows of it."""
        (job,) = [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and _runs(process, f"{JOB}\0{records.folder}")
        ]
        os.kill(job, signal.SIGKILL)

    noted = AtStart(waiting, kill)
    assert Drive(slurm(), records, 1, noted).run([waiting], ONE) == []
    assert noted.of("waiting") == [("failed", 1), ("done", 1)]
    assert len(starts(waiting)) == 2


def _runs(process: Path, words: str) -> bool:
    try:
        return words in (process / "cmdline").read_text()
    except OSError:
        return False


DRIVER = """
import json, sys
from pathlib import Path
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.slurm import JOB, Slurm
from clbench.launch.records import Records

cells, runs, program = json.loads(sys.argv[1])
records = Records(Path(runs))
launcher = Slurm(records, (), program, pause=0.3)
Drive(launcher, records).run([Cell.of(c) for c in cells], Resources(cpus=1))
"""


@pytest.mark.slow
def test_jobs_outlive_their_driver_and_the_next_one_finds_them(
    cell: Make, slurm: Callable[..., Slurm], records: Records, cluster: Cluster
) -> None:
    cells = [cell("patient"), cell("patient", 1), cell("patient", 2)]
    records.save_plan(cells, "slurm", ONE)
    job = json.dumps([[c.plain() for c in cells], str(records.runs_dir), PROGRAM])
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, job])
    until(lambda: all((c.path / "ready").exists() for c in cells[:2]))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(cluster.jobs()) == 3
    counts = overview(records.runs_dir).counts
    assert (counts["running"], counts["waiting"]) == (2, 1)
    assert "scancel --name=clbench-" in slurm().farewell()

    for one in cells:
        one.path.mkdir(parents=True, exist_ok=True)
        (one.path / "go").touch()
    noted = Noted()
    assert Drive(slurm(), records, 0, noted).run(cells, ONE) == []
    assert [len(starts(c)) for c in cells] == [1, 1, 1], "none was submitted again"
    assert slurm().farewell() == "" or not slurm().queue()


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(
    cell: Make, slurm: Callable[..., Slurm], records: Records
) -> None:
    with pytest.raises(ClbenchError, match=r"sbatch: .*nowhere"):
        Drive(slurm("--partition=nowhere"), records).run([cell("good")], ONE)


@pytest.mark.slow
def test_parts_of_devices_are_refused(cell: Make, slurm: Callable[..., Slurm]) -> None:
    with pytest.raises(ClbenchError, match="whole devices"):
        slurm().fitted([cell("good")], Resources(gpus=0.5))


def test_without_slurm_there_is_one_line(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ClbenchError, match="needs sbatch, squeue, scontrol"):
        Slurm(records)
