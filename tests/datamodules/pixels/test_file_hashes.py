"""Hashes of image files: every edit is seen, and no file is read twice without need."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels import file_hashes
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.file_hashes import FileHashes

FILES = ("a/1.jpg", "a/2.jpg", "b/ü.jpg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(file.encode())
    return folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old enough to be kept."""
    monkeypatch.setattr(file_hashes, "SETTLED", -1.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened from here on."""
    opened: list[str] = []
    original = Path.open

    def noting(self: Path, *args, **kwargs):
        if self.suffix == ".jpg":
            opened.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", noting)
    return opened


def expected(root: Path) -> list[str]:
    return [hashlib.sha256((root / file).read_bytes()).hexdigest() for file in FILES]


def hashes(root: Path, cache: Cache | None) -> list[str]:
    return [row.tobytes().hex() for row in FileHashes(root, cache).of(FILES)]


def edit(path: Path) -> None:
    """Change a file's content, and nothing of size, time of modification and inode."""
    before = after = path.stat()
    while after.st_ctime_ns == before.st_ctime_ns:  # the clock of a file system is coarse
        with path.open("r+b") as file:
            file.write(b"X")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
    for name in ("st_size", "st_mtime_ns", "st_ino"):
        assert getattr(before, name) == getattr(after, name)


def test_hashes_are_those_of_the_contents(root: Path, tmp_path: Path) -> None:
    assert hashes(root, None) == expected(root)
    assert hashes(root, Cache(tmp_path / "cache")) == expected(root)


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(root: Path, tmp_path: Path, read: list[str]) -> None:
    cache = Cache(tmp_path / "cache")
    first = hashes(root, cache)
    assert sorted(read) == ["1.jpg", "2.jpg", "ü.jpg"]
    read.clear()
    assert hashes(root, cache) == first
    assert read == []
    link = tmp_path / "link"
    link.symlink_to(root)
    assert hashes(link, cache) == first
    assert read == [], "the same folder by another name"


@pytest.mark.usefixtures("settled")
def test_an_edit_that_restores_size_and_time_is_seen(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    cache = Cache(tmp_path / "cache")
    before = hashes(root, cache)
    edit(root / FILES[1])
    read.clear()
    after = hashes(root, cache)
    assert after == expected(root)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_files_that_changed_a_moment_ago_are_read_again(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    cache = Cache(tmp_path / "cache")
    hashes(root, cache)
    read.clear()
    hashes(root, cache)
    assert len(read) == 3


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_a_damaged_record_costs_time_only(root: Path, tmp_path: Path, content: bytes) -> None:
    cache = Cache(tmp_path / "cache")
    hashes(root, cache)
    (record,) = (tmp_path / "cache" / "hashes").glob("*.npz")
    sound = record.read_bytes()
    record.write_bytes(content)
    assert hashes(root, cache) == expected(root)
    assert record.read_bytes() == sound


@pytest.mark.usefixtures("settled")
def test_parts_of_a_folder_share_one_record(root: Path, tmp_path: Path, read: list[str]) -> None:
    cache = Cache(tmp_path / "cache")
    FileHashes(root, cache).of(FILES[:2])
    FileHashes(root, cache).of(FILES[2:])
    read.clear()
    found = hashes(root, cache)
    assert read == []
    assert found == expected(root)


@pytest.mark.usefixtures("settled")
def test_what_others_have_read_is_known_where_nothing_can_be_written(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    shared = tmp_path / "shared"
    hashes(root, Cache(shared))
    before = {path: path.read_bytes() for path in shared.rglob("*.npz")}
    mine = Cache(tmp_path / "mine", shared)
    read.clear()
    found = hashes(root, mine)
    assert read == []
    assert found == expected(root)
    edit(root / FILES[0])
    assert hashes(root, mine) == expected(root)
    assert {path: path.read_bytes() for path in shared.rglob("*.npz")} == before
    (tmp_path / "file").write_text("")
    assert hashes(root, Cache(tmp_path / "file")) == expected(root)


@pytest.mark.usefixtures("settled")
def test_a_check_reads_everything_and_names_what_changed(root: Path, tmp_path: Path) -> None:
    hashed, seen = FileHashes(root, Cache(tmp_path / "cache")), []
    inspect = lambda path, content: seen.append((path.name, len(content)))  # noqa: E731
    assert hashed.changed(FILES, inspect) == [], "nothing was known before"
    assert len(seen) == 3
    edit(root / FILES[2])
    assert hashed.changed(FILES, inspect) == [FILES[2]]
    assert hashed.changed(FILES, inspect) == [], "it is named once"
    assert len(seen) == 9


def test_a_missing_file_is_named(root: Path) -> None:
    (root / FILES[0]).unlink()
    with pytest.raises(ClbenchError, match=r"cannot read the image .*a/1\.jpg: No such file"):
        hashes(root, None)
