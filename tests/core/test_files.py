"""Atomic writing: all or nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.files import (
    cached_file,
    content_hash,
    file_hash,
    round_significant,
    user_cache,
    write_atomic,
)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CLBENCH_CACHE": "/own", "XDG_CACHE_HOME": "/xdg", "HOME": "/home"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home"}, "/xdg/clbench"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home"}, "/home/.cache/clbench"),
        ({"HOME": "/home"}, "/home/.cache/clbench"),
    ],
)
def test_the_cache_lies_where_variables_say(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == Path(expected)
    assert cached_file("cache:weights/file") == Path(expected) / "weights" / "file"
    assert cached_file("weights/file") is None


@pytest.mark.parametrize("name", ["cache:/etc/passwd", "cache:../file", "cache:a/../../file"])
def test_names_lead_nowhere_out_of_the_cache(name: str) -> None:
    with pytest.raises(ClbenchError, match="leads out of the user's cache folder"):
        cached_file(name)


def test_writes_text_and_bytes_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()
    write_atomic(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, "old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if function == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ClbenchError, match=r"cannot write .*result\.json: No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    seen: list[bool] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_atomic(path, "text")
    assert seen == [False, True], "the file, then its name in the folder"
    assert path.read_text() == "text"


def test_many_writes_leave_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = os.open

    def noting(*args: Any, **options: Any) -> int:
        opened.append(real(*args, **options))
        return opened[-1]

    monkeypatch.setattr(os, "open", noting)
    write_atomic(tmp_path / "file", "text")
    assert opened, "the folder is synced"
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("where", ["file/inside", "folder"])
def test_impossible_places_are_user_errors(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ClbenchError, match="cannot write"):
        write_atomic(tmp_path / where, "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_the_cause_of_a_failure_is_told_also_where_no_file_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ClbenchError, match=r"cannot write .*/file: No space left on device$"):
        write_atomic(tmp_path / "file", "text")


def test_a_failure_without_a_reason_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("out of order")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ClbenchError, match=r"cannot write .*/file: out of order"):
        write_atomic(tmp_path / "file", "text")


def test_numbers_keep_what_tables_keep() -> None:
    assert round_significant(2 / 3) == 0.6666666667
    assert round_significant(12345.678901234) == 12345.6789
    assert round_significant(1.23456789e-9) == 1.235e-9
    assert str(round_significant(-1e-17)) == "0.0"


def test_a_hash_is_that_of_the_content() -> None:
    assert content_hash({"a": 1, "b": [0.5]}) == content_hash({"b": [0.5], "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content_hash({}) == expected


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    assert file_hash(tmp_path / "file") == content_hash({})
