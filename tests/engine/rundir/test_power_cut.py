"""The power is cut: what was promised before is on the disk, and the run goes on from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.core.files import write_atomic
from clbench.core.results.correctness import disagreement
from clbench.core.results.manifest import FILE_NAME as MANIFEST
from clbench.core.results.manifest import check_manifest
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import counted_rows
from clbench.engine.rundir.checkpoints import CheckpointStore, Position
from clbench.engine.rundir.directory import RunDirectory
from clbench.engine.rundir.resuming import find_resume
from clbench.methods.finetune import Finetune
from tests.engine.rundir.test_resuming import folder, outcome
from tests.power_cut import Disk

Run = Callable[..., RunResult]
WAYS = [False, True]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk", tmp_path / "vault")


@pytest.mark.parametrize("names_survive", WAYS)
def test_the_disk_forgets_what_nobody_synced(
    disk: Disk, tmp_path: Path, names_survive: bool
) -> None:
    """Otherwise the tests below would prove nothing."""
    with disk.watching():
        write_atomic(disk.folder / "file", "old")
        (disk.folder / "file").write_text("new")
        (disk.folder / "later").write_text("new")
        write_atomic(disk.folder / "other", "x")
    disk.after_a_cut(1, tmp_path / "first", names_survive=names_survive)
    assert (tmp_path / "first" / "file").read_text() == "old"
    disk.after_a_cut(2, tmp_path / "second", names_survive=names_survive)
    assert (tmp_path / "second" / "file").read_text() == "old"
    assert (tmp_path / "second" / "later").exists() == names_survive
    if names_survive:
        assert (tmp_path / "second" / "later").read_text() == ""


@pytest.mark.parametrize("names_survive", WAYS)
def test_a_file_is_whole_or_the_old_one_and_its_folders_are_there(
    disk: Disk, tmp_path: Path, names_survive: bool
) -> None:
    path = Path("new", "folder", "file")
    written: list[int] = []
    with disk.watching():
        for text in ("first", "second"):
            write_atomic(disk.folder / path, text)
            written.append(len(disk.moments))
    for number in range(len(disk.moments)):
        target = tmp_path / f"cut {number}"
        disk.after_a_cut(number, target, names_survive=names_survive)
        done = sum(number + 1 >= count for count in written)
        found = (target / path).read_text() if (target / path).exists() else None
        assert found in [None, "first", "second"][done : done + 2], number


OPTIONS: dict[str, Any] = {"steps": 5, "checkpoint_every": {"steps": 2}}


@pytest.fixture
def cut_run(run: Run, disk: Disk) -> Disk:
    """A run of three tasks on a disk that is watched."""
    with disk.watching():
        run(Finetune(), runs_dir=disk.folder / "runs", **OPTIONS)
    return disk


def test_nothing_that_was_saved_is_lost_wherever_the_power_is_cut(
    cut_run: Disk, tmp_path: Path
) -> None:
    """Looked at after every single sync, without going on."""
    name = folder(cut_run.folder).relative_to(cut_run.folder)
    for names_survive in WAYS:
        most = Position(0), -1
        for number in range(len(cut_run.moments)):
            target = tmp_path / "found"
            cut_run.after_a_cut(number, target, names_survive=names_survive)
            found = saved(target / name)
            assert most <= found, number
            most = found
            shutil.rmtree(target)
        assert most == (Position(3), 3)
    assert CheckpointStore(folder(cut_run.folder)).positions() == [Position(3)]


def saved(path: Path) -> tuple[Position, int]:
    """How far a run directory leads, after a look at whether all in it agrees."""
    if not (path / "result.json").exists():
        return Position(0), -1
    notes: list[str] = []
    result = RunResult.load(path)
    with RunDirectory(path) as directory:
        resume = find_resume(directory, notes.append)
    assert not notes
    assert disagreement(counted_rows(path / "result.json", result), result.matrix) is None
    if (path / MANIFEST).exists():
        assert [finding for finding in check_manifest(path, result) if not finding.sound] == []
    return Position(0) if resume is None else resume.position, result.matrix.learned


def go_on(run: Run, disk: Disk, number: int, target: Path, names_survive: bool) -> dict[str, Any]:
    """What becomes of the run after a cut."""
    disk.after_a_cut(number, target, names_survive=names_survive)
    run(Finetune(), runs_dir=target / "runs", **OPTIONS)
    found = outcome(target)
    shutil.rmtree(target)
    return found


def test_a_run_whose_power_was_cut_ends_like_one_that_was_not(
    run: Run, cut_run: Disk, tmp_path: Path
) -> None:
    whole, syncs = outcome(cut_run.folder), len(cut_run.moments)
    for names_survive, parts in ((False, (0.4, 0.7)), (True, (0.3, 0.9))):
        for part in parts:
            number = int(part * syncs)
            assert go_on(run, cut_run, number, tmp_path / "found", names_survive) == whole, number


@pytest.mark.slow
@pytest.mark.parametrize("names_survive", WAYS)
def test_the_same_after_every_sync(
    run: Run, cut_run: Disk, tmp_path: Path, names_survive: bool
) -> None:
    whole = outcome(cut_run.folder)
    for number in range(len(cut_run.moments)):
        assert go_on(run, cut_run, number, tmp_path / "found", names_survive) == whole, number
