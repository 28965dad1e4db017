from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.engine.rundir.checkpoints import Checkpoint, CheckpointStore, Position
from clbench.engine.rundir.directory import RunDirectory, run_path
from tests.made_up import make_result


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


def test_the_owner_is_noted_while_the_directory_is_held(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDirectory(tmp_path) as directory:
            note = json.loads((tmp_path / ".owner.json").read_text())
            assert note["pid"] == os.getpid()
            assert directory.dead_owner is None
        assert not (tmp_path / ".owner.json").exists()


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClbenchError, match="--runs-dir"),
        RunDirectory(tmp_path / "file" / "run"),
    ):
        pass


def test_records_beyond_a_position_are_dropped_and_so_is_half_a_line(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as directory:
        for task, step in ((1, 20), (1, 40), (2, 20), (2, 40), (3, 20)):
            directory.record({"task": task, "step": step})
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"task": 1, "st')
        directory.drop_records(Position(1, 20))
        assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [
            '{"task": 1, "step": 20}',
            '{"task": 1, "step": 40}',
            '{"task": 2, "step": 20}',
        ]
        directory.drop_records(Position(1))
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("damage", ["{", '{"step": 3}', "[]", '"x"'])
def test_records_end_where_one_is_damaged(tmp_path: Path, damage: str) -> None:
    whole = ['{"task": 1, "step": 1}', '{"task": 1, "step": 2}']
    (tmp_path / "metrics.jsonl").write_text("\n".join([*whole, damage, *whole]))
    with RunDirectory(tmp_path) as directory:
        directory.drop_records(Position(3, 0))
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == whole


@pytest.mark.parametrize("place", ["leaf", "method", "checkpoints", "log.txt", "row"])
def test_links_lead_nowhere(tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "runs" / "mini" / "nusa" / "seed0-x"
    links = {"leaf": run, "method": run.parent, "row": run / "correct" / "row-001.bits"}
    link = links.get(place, run / place)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with (
        pytest.raises(ClbenchError, match="is a symbolic link"),
        RunDirectory(run, tmp_path / "runs") as directory,
    ):
        directory.log("never")
    assert list(outside.iterdir()) == []


def test_a_folder_of_runs_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    with RunDirectory(tmp_path / "runs" / "mini" / "run", tmp_path / "runs") as directory:
        directory.log("here")
    assert (tmp_path / "scratch" / "mini" / "run" / "log.txt").read_text() == "here\n"


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "correct").mkdir()
    for name in (".result.json.1234.tmp", ".1234.now", "correct/.row-001.bits.12.tmp"):
        (tmp_path / name).touch()
    with RunDirectory(tmp_path):
        names = {path.name for path in tmp_path.rglob("*")}
        assert not any(name.endswith((".tmp", ".now")) for name in names)


def test_a_directory_that_vanished_is_told(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(ClbenchError, match="disappeared during the run"):
            directory.require()
        with pytest.raises(ClbenchError, match="disappeared during the run"):
            directory.save_result(make_result())
        with pytest.raises(ClbenchError, match=r"cannot write .*log\.txt"):
            directory.log("x")
    assert not (tmp_path / "run").exists()


def checkpoint(folder: Path, learned: int) -> Path:
    """Write one; returns its tensors."""
    CheckpointStore(folder).save(Checkpoint(Position(learned), {"w": torch.zeros(2)}, {}))
    return folder / "checkpoints" / f"task-{learned:03d}.safetensors"


def test_a_damaged_result_beside_checkpoints_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "seed0-x"
    run.mkdir()
    first, second = checkpoint(run, 1), checkpoint(run, 2)
    (run / "result.json").write_text("{")
    directory = RunDirectory(run)
    expected = (
        r"result.json is damaged.* the checkpoint task-002 beside it is sound: with a copy of the "
        rf"file from a backup.*; --fresh starts it anew and keeps all of this in {tmp_path}/aside"
    )
    with pytest.raises(ClbenchError, match=expected):
        directory.result()
    second.write_bytes(b"")
    with pytest.raises(ClbenchError, match="the checkpoint task-001 beside it is sound"):
        directory.result()
    first.unlink()
    with pytest.raises(ClbenchError, match=r"no sound checkpoint lies beside it; --fresh starts"):
        directory.result()


def test_a_directory_that_is_held_is_not_free(tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path),
        pytest.raises(ClbenchError, match=rf"in use by process {os.getpid()} on "),
    ):
        RunDirectory(tmp_path).require_free()
    RunDirectory(tmp_path).require_free()


def test_a_link_is_not_taken_for_a_free_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    link = tmp_path / "runs" / "run"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClbenchError, match="is a symbolic link"):
        RunDirectory(link, tmp_path / "runs").require_free()


def test_a_finished_run_is_sealed_until_it_is_made_again(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as directory:
        directory.log("done")
        assert not directory.sealed
        directory.seal()
        assert directory.sealed
        assert "log.txt" in json.loads((tmp_path / "manifest.json").read_text())["files"]
        directory.unseal()
        assert not directory.sealed


def test_one_run_after_another_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for name in ("first", "second"):
        with RunDirectory(path):
            (path / name).touch()
        aside = RunDirectory(path).put_aside()
        assert aside is not None
        assert aside.parent == tmp_path / "aside"
        assert (aside / name).exists()
        assert not path.exists()
    assert RunDirectory(path).put_aside() is None


def test_a_run_that_cannot_be_moved_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDirectory(tmp_path / "run"):
        pass

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ClbenchError, match=rf"run aside: {os.strerror(errno.EXDEV)}; move it"):
        RunDirectory(tmp_path / "run").put_aside()
