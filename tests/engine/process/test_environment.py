"""What the environment says of processes that were started together."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.engine.process.environment import Place, follows, place
from tests.small_runs import run_small, write_tasks

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "1234",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
LIGHTNING = {
    "LOCAL_RANK": "1",
    "NODE_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1234",
}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04,09]",
}


def test_torchrun_says_where_a_process_is() -> None:
    assert place(TORCHRUN) == Place(3, 4, 1, "first", 1234, "torchrun", hosted=True)


def test_lightning_says_where_a_process_is() -> None:
    assert place(LIGHTNING) == Place(1, 2, 1, "127.0.0.1", 1234, "lightning")


def test_srun_says_where_a_process_is() -> None:
    found = place(SRUN)
    assert found is not None
    assert (found.rank, found.size, found.local, found.starter) == (2, 4, 0, "srun")
    assert found.address == "gpu03"
    other = place({**SRUN, "SLURM_STEP_ID": "3"})
    assert other is not None
    assert other.port != found.port, "two steps of a job can share a machine"
    chosen = place({**SRUN, "MASTER_ADDR": "ib0", "MASTER_PORT": "99"})
    assert chosen is not None
    assert (chosen.address, chosen.port) == ("ib0", 99)


def test_torchrun_within_a_step_of_srun_decides() -> None:
    assert place({**SRUN, **TORCHRUN}) == place(TORCHRUN)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "4"},
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # a batch script
        {**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_a_process_alone_has_no_place(variables: dict[str, str]) -> None:
    assert place(variables) is None


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({**TORCHRUN, "RANK": "4"}, "number 4 of 4"),
        ({**TORCHRUN, "RANK": "first"}, "RANK is no number: 'first'"),
        ({**TORCHRUN, "WORLD_SIZE": "all"}, "WORLD_SIZE is no number: 'all'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT are not set"),
        ({**LIGHTNING, "NODE_RANK": "1"}, "RANK is not set"),
    ],
)
def test_contradictions_are_one_clear_error(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ClbenchError, match=said):
        place(variables)


def started(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {**TORCHRUN, **changes}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("devices", "start"), [(1, "start one process"), (3, "start 3 processes")])
def test_other_numbers_of_processes_and_devices_are_refused(
    devices: int, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=1)
    started(monkeypatch, RANK="0", WORLD_SIZE="2")
    with pytest.raises(ClbenchError) as error:
        run_small("lora", tasks, tmp_path / "runs", devices=devices)
    assert "torchrun started 2 processes (WORLD_SIZE)" in str(error.value)
    assert f"devices={devices}: use --set devices=2, or {start}" in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_only_the_first_process_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", "--set", "devices=2"]
    outputs = []
    for rank in "01":
        started(monkeypatch, RANK=rank, WORLD_SIZE="4")
        assert follows() == (rank == "1")
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        outputs.append(result.output)
    assert outputs[0].startswith("clbench: torchrun started 4 processes (WORLD_SIZE)")
    assert outputs[1] == ""


def test_comparisons_start_processes_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, RANK="0")
    result = CliRunner().invoke(app, ["compare", "--methods", "lora", "--seeds", "0", "--quick"])
    assert result.exit_code == 2
    assert "start them once, without torchrun or srun" in result.output
