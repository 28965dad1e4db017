"""A disk that forgets, when the power is cut, whatever was not synced.

While a `Disk` watches a folder, every ``os.fsync`` in it is noted: that of a file makes its
content durable, that of a folder its list of names. `Disk.after_a_cut` builds what a machine finds
that lost its power right after one of them, in the two ways that file systems allow: names that
were not synced are lost as well, or they are there and the content behind them is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

Names = dict[str, int]
"""Name to inode."""


@dataclass(frozen=True)
class Moment:
    """What was durable after a sync, and what was on the disk besides.

    Attributes:
        contents: inode to bytes that were synced.
        synced: inode of a folder to the names in it when it was synced.
        present: the same for all folders as they were.
    """

    contents: dict[int, bytes]
    synced: dict[int, Names]
    present: dict[int, Names]


class Disk:
    """Watches a folder.

    Args:
        folder: what lies in it when the watch begins counts as durable.
        vault: folder of the same file system; links kept there keep inodes from being used again.
    """

    def __init__(self, folder: Path, vault: Path) -> None:
        self.folder = folder
        self.moments: list[Moment] = []
        self._vault = vault
        vault.mkdir()
        self._contents: dict[int, bytes] = {}
        self._folders: dict[int, Names] = {}
        for inner in _folders(folder):
            self._folders[inner.stat().st_ino] = _names(inner)
        for path in folder.rglob("*"):
            if path.is_file():
                self._contents[path.stat().st_ino] = path.read_bytes()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note every sync while open."""
        fsync = os.fsync

        def noting(descriptor: int) -> None:
            fsync(descriptor)
            self._note(os.fstat(descriptor).st_ino)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", noting)
            yield

    def after_a_cut(self, number: int, target: Path, *, names_survive: bool) -> None:
        """Build the folder as it is found after a cut that followed a sync.

        Args:
            number: of the sync.
            target: where; must not exist.
            names_survive: whether renames and new names are on the disk although nobody synced
                their folder. Files that were not synced are then empty.
        """
        moment = self.moments[number]
        folders = moment.present if names_survive else moment.synced

        def build(inode: int, place: Path) -> None:
            place.mkdir()
            for name, inner in folders.get(inode, {}).items():
                if inner in moment.present or inner in moment.synced:
                    build(inner, place / name)
                else:
                    (place / name).write_bytes(moment.contents.get(inner, b""))

        build(self.folder.stat().st_ino, target)

    def _note(self, inode: int) -> None:
        entries = [self.folder, *self.folder.rglob("*")]
        path = next((entry for entry in entries if entry.lstat().st_ino == inode), None)
        if path is None:
            return
        if path.is_dir():
            self._folders[inode] = _names(path)
        else:
            self._contents[inode] = path.read_bytes()
            kept = self._vault / str(inode)
            if not kept.exists():
                os.link(path, kept)
        present = {inner.stat().st_ino: _names(inner) for inner in _folders(self.folder)}
        self.moments.append(Moment(dict(self._contents), dict(self._folders), present))


def _folders(folder: Path) -> list[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def _names(folder: Path) -> Names:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}
