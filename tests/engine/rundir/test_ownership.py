"""Who holds a run directory: one process, on any host, as long as it lives."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.engine.rundir.directory import RunDirectory
from clbench.engine.rundir.ownership import SILENCE, Owner, Ownership

HOLD = """
import sys
from pathlib import Path
from clbench.engine.rundir.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_directory(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    expected = rf"in use by process {holder.pid} on {os.uname().nodename} since \d{{4}}-.*: wait"
    with pytest.raises(ClbenchError, match=expected), RunDirectory(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunDirectory(tmp_path) as directory:
        assert directory.dead_owner is not None
        assert directory.dead_owner.pid == holder.pid
    with RunDirectory(tmp_path) as directory:
        assert directory.dead_owner is None


def leave_note(folder: Path, age: float, host: str = "elsewhere", boot: str = "other") -> Path:
    note = folder / ".owner.json"
    content = {"pid": 4711, "host": host, "since": "2026-01-01T00:00:00+00:00", "boot": boot}
    note.write_text(json.dumps(content))
    now = note.stat().st_mtime
    os.utime(note, (now - age, now - age))
    return note


@pytest.mark.parametrize("age", [0.0, SILENCE / 2, -3600.0])
def test_a_process_of_another_host_that_was_seen_lately_counts(tmp_path: Path, age: float) -> None:
    """Also one from the future: a clock was set back, so nothing is known."""
    note = leave_note(tmp_path, age)
    expected = rf"process 4711 on elsewhere .* seen {max(age, 0):.0f} s ago.* delete .*owner\.json"
    with pytest.raises(ClbenchError, match=expected), RunDirectory(tmp_path):
        pass
    assert Owner.read(note).pid == 4711
    note.unlink()
    with RunDirectory(tmp_path):
        pass


def test_a_process_of_another_host_that_fell_silent_is_dead(tmp_path: Path) -> None:
    leave_note(tmp_path, SILENCE + 60)
    with RunDirectory(tmp_path) as directory:
        assert directory.dead_owner.host == "elsewhere"


def test_another_container_of_the_same_kernel_is_known_to_be_dead(tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        pytest.skip("this system does not tell its boots apart")
    leave_note(tmp_path, 0.0, host="old-container", boot=boot.read_text().strip())
    with RunDirectory(tmp_path) as directory:
        assert directory.dead_owner.host == "old-container"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "[" * 50_000])
def test_half_a_note_is_no_owner(tmp_path: Path, text: str) -> None:
    (tmp_path / ".owner.json").write_text(text)
    with RunDirectory(tmp_path) as directory:
        assert directory.dead_owner is None


def refuse_writing(*args: object, **kwargs: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_what_may_only_be_read_is_free_unless_somebody_holds_it(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filelock.FileLock.acquire", refuse_writing)
    with pytest.raises(ClbenchError, match=rf"in use by process {holder.pid} on "):
        RunDirectory(tmp_path).require_free()
    holder.kill()
    holder.wait()
    RunDirectory(tmp_path).require_free()
    (tmp_path / ".lock").unlink()
    RunDirectory(tmp_path).require_free()
    with pytest.raises(ClbenchError, match="cannot write to the run directory"):
        RunDirectory(tmp_path).__enter__()


class TwoBeats:
    """Stands for the event that ends the signs of life: it lets two of them pass."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > 2


def test_an_owner_gives_signs_of_life_well_before_it_would_count_as_dead(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path)
    note = leave_note(tmp_path, 3600.0)
    before = note.stat().st_mtime
    ownership._done = TwoBeats()
    ownership._keep_beating()
    assert note.stat().st_mtime > before + 3000
    assert len(ownership._done.waits) == 3
    assert max(ownership._done.waits) < SILENCE / 2


def test_a_vanished_note_ends_no_run(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path)
    ownership._done = TwoBeats()
    ownership._keep_beating()
    assert len(ownership._done.waits) == 3


def test_asking_whether_a_directory_is_free_finds_who_holds_it(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(ClbenchError, match=rf"in use by process {holder.pid} on "):
        RunDirectory(tmp_path).require_free()


def test_a_directory_that_another_host_holds_is_not_free(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    leave_note(tmp_path, 0.0)
    with pytest.raises(ClbenchError, match="in use by process 4711 on elsewhere"):
        RunDirectory(tmp_path).require_free()


def test_where_no_lock_can_be_asked_for_nobody_is_taken_to_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDirectory(tmp_path):
        pass
    monkeypatch.setattr("filelock.FileLock.acquire", refuse_writing)
    monkeypatch.setattr("fcntl.flock", refuse_writing)
    RunDirectory(tmp_path).require_free()


def test_who_only_asked_does_not_hold_the_directory(tmp_path: Path) -> None:
    with RunDirectory(tmp_path):
        pass
    asked = Ownership(tmp_path)
    asked.require_free()
    Ownership(tmp_path).require_free()


def test_who_was_refused_does_not_hold_the_directory(tmp_path: Path) -> None:
    note = leave_note(tmp_path, 0.0)
    refused = Ownership(tmp_path)
    with pytest.raises(ClbenchError, match="in use by process 4711"):
        refused.acquire()
    note.unlink()
    Ownership(tmp_path).require_free()


def test_what_was_never_held_may_be_given_back(tmp_path: Path) -> None:
    Ownership(tmp_path).release()
    Ownership(tmp_path).require_free()


def test_who_holds_a_directory_is_noted_and_the_note_goes_with_them(tmp_path: Path) -> None:
    held = Ownership(tmp_path)
    held.acquire()
    noted = Owner.read(tmp_path / ".owner.json")
    assert noted is not None
    assert (noted.pid, noted.host) == (os.getpid(), os.uname().nodename)
    held.release()
    assert not (tmp_path / ".owner.json").exists()
