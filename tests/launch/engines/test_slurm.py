"""Array jobs of a real Slurm: requeued, preempted, out of time, killed, without a driver."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Cell, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.slurm import JOB, Slurm
from clbench.launch.records import Records
from clbench.launch.standing import overview
from tests.launch.conftest import AtWork, Noted, starts, until
from tests.launch.engines.slurm_cluster import Cluster

Make = Callable[..., Cell]
ONE = Resources(cpus=1)


@pytest.mark.slow
def test_a_requeued_job_saves_and_goes_on(
    cell: Make, slurm: Callable[..., Slurm], records: Records, cluster: Cluster
) -> None:
    waiting = cell("waiting")
    noted = AtWork(waiting, lambda: cluster.said("scontrol", "requeue", *cluster.jobs()))
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
    noted = AtWork(waiting, lambda: cluster.said(*urgent))
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

    noted = AtWork(waiting, kill)
    assert Drive(slurm(), records, 1, noted).run([waiting], ONE) == []
    assert noted.of("waiting") == [("failed", 1), ("done", 1)]
    assert len(starts(waiting)) == 2


def _runs(process: Path, words: str) -> bool:
    try:
        return words in (process / "cmdline").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_jobs_need_no_driver_and_the_next_one_finds_them(
    cell: Make, slurm: Callable[..., Slurm], records: Records, cluster: Cluster
) -> None:
    cells = [cell("patient"), cell("patient", 1), cell("patient", 2)]
    records.save_plan(cells, "slurm", ONE)
    slurm().submit(cells, ONE)
    until(lambda: all((c.path / "ready").exists() for c in cells[:2]))
    assert slurm().queue().keys() == {c.key for c in cells}
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
