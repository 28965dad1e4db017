from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.engine.rundir import RunDirectory, flatten_state, run_path, unflatten_state


def settings(**changes: object) -> RunSettings:
    return RunSettings.model_validate(changes)


def test_the_same_settings_give_the_same_folder() -> None:
    assert run_path(Path("runs"), settings()) == run_path(Path("runs"), settings())


def test_the_seed_stands_in_the_name_and_not_in_the_hash() -> None:
    first, second = (run_path(Path("r"), settings(seed=s)).name for s in (1, 2))
    assert first.startswith("seed1-")
    assert second.startswith("seed2-")
    assert first.split("-")[1] == second.split("-")[1]


def test_settings_that_change_numbers_change_the_folder() -> None:
    base = run_path(Path("r"), settings())
    assert run_path(Path("r"), settings(train={"lr": 0.5})) != base
    assert run_path(Path("r"), settings(quick=True)) != base
    assert run_path(Path("r"), settings(workers=3, device="cpu")) == base


def test_names_lead_nowhere_else() -> None:
    path = run_path(Path("runs"), settings(method={"name": "../../x:Y"}))
    assert ".." not in path.parts


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    other = FileLock(tmp_path / ".lock")
    with other:
        (tmp_path / ".lock").write_text("4711")
        with pytest.raises(ClbenchError, match="in use by process 4711"), RunDirectory(tmp_path):
            pass


def test_the_lock_is_free_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDirectory(tmp_path):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClbenchError, match="--runs-dir"),
        RunDirectory(tmp_path / "file" / "run"),
    ):
        pass


def test_state_of_tensors_values_and_mappings_survives_a_checkpoint(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    state = {
        "a": shared,
        "b": shared,
        "extra": {"x": torch.ones(2, dtype=torch.int64), "n": 3},
        "empty": {},
        "plain": 1.5,
    }
    with RunDirectory(tmp_path) as directory:
        directory.save_checkpoint(1, state)
        loaded = directory.load_checkpoint(1)
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["b"], shared)
    assert torch.equal(loaded["extra"]["x"], torch.ones(2, dtype=torch.int64))
    assert loaded["extra"]["n"] == 3
    assert (loaded["empty"], loaded["plain"]) == ({}, 1.5)


def test_flattening_can_be_undone_without_a_file() -> None:
    state = {"w": torch.zeros(1), "g": {"k": 1, "t": torch.ones(1)}}
    restored = unflatten_state(*flatten_state(state))
    assert restored["g"]["k"] == 1
    assert torch.equal(restored["g"]["t"], torch.ones(1))


def test_a_truncated_checkpoint_counts_as_missing(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as directory:
        directory.save_checkpoint(1, {"a": torch.zeros(100)})
        (file,) = (tmp_path / "checkpoints").iterdir()
        file.write_bytes(file.read_bytes()[:50])
        assert directory.load_checkpoint(1) is None
        assert directory.load_checkpoint(2) is None


def test_records_of_unfinished_tasks_are_dropped(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as directory:
        for task in (1, 1, 2, 3):
            directory.record({"task": task})
        directory.drop_records(2)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3
