"""What image files hold: a SHA-256 of each, read once and kept.

A kept hash counts as long as size, both times and inode of its file are what they were when it was
read. The time of the last change (ctime), which no program can set, sees edits that restore the
time of modification. Files that changed in the moment before they were read are not kept: another
change in the same moment would leave all four as they are.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import Progress

from clbench.core.errors import ClbenchError
from clbench.core.foreign.console import SafeConsole
from clbench.datamodules.pixels.data_folder import Cache

SETTLED: Final = 2.0
"""Seconds after which a changed file is kept; file systems note times by up to two seconds."""
CHUNK: Final = 256
"""Files hashed between two reports of progress."""

Hashes = NDArray[np.uint8]
#: Told how many files are done and how many there are.
Advance = Callable[[int, int], None]
#: Shown every file that is read, with its content; called from several threads.
Inspect = Callable[[Path, bytes], None]
Known = dict[str, tuple[tuple[int, ...], bytes]]
"""File name to size, times and inode, and SHA-256."""


class FileHashes:
    """Hashes of the files below a folder.

    Args:
        root: the folder.
        cache: where they are kept; None means nowhere.
    """

    def __init__(self, root: Path, cache: Cache | None) -> None:
        self._root = root
        place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
        self._name = f"{root.resolve().name}-{place}.npz"
        self._cache = cache and cache.within("hashes")

    def of(self, files: Sequence[str], advance: Advance | None = None) -> Hashes:
        """SHA-256 of files, ``(N, 32)`` uint8.

        Args:
            files: paths below the folder, with forward slashes.
            advance: told of progress.

        Raises:
            ClbenchError: a file cannot be read.
        """
        return self._take(files, self._read(), advance, None)

    def of_all(self, files: Sequence[str], name: str, *, quiet: bool) -> Hashes:
        """As `of`, with a progress bar on terminals.

        Args:
            files: paths below the folder.
            name: what the bar says is looked at.
            quiet: show none.

        Raises:
            ClbenchError: a file cannot be read.
        """
        console = SafeConsole(stderr=True, quiet=quiet)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            shown = bar.add_task(f"looking at {name}")
            return self.of(
                files,
                advance=lambda done, total: bar.update(shown, completed=done, total=total),
            )

    def changed(
        self, files: Sequence[str], inspect: Inspect, advance: Advance | None = None
    ) -> list[str]:
        """Read all files again, and name those that do not hold what they held the last time.

        Raises:
            ClbenchError: a file cannot be read.
        """
        before = self._read()
        now = self._take(files, {}, advance, inspect)
        return [
            file
            for file, digest in zip(files, now, strict=True)
            if file in before and before[file][1] != digest.tobytes()
        ]

    def _take(
        self,
        files: Sequence[str],
        kept: Known,
        advance: Advance | None,
        inspect: Inspect | None,
    ) -> Hashes:
        """Read what is not kept, and keep it."""
        found: list[bytes] = []
        new: Known = {}
        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
            for start in range(0, len(files), CHUNK):
                part = files[start : start + CHUNK]
                hashed = pool.map(lambda file: self._hash(file, kept.get(file), inspect), part)
                for file, (identity, digest) in zip(part, hashed, strict=True):
                    found.append(digest)
                    if identity is not None and kept.get(file) != (identity, digest):
                        new[file] = (identity, digest)
                if advance is not None:
                    advance(len(found), len(files))
        if new:
            self._keep(new)
        return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32)

    def _hash(
        self, file: str, kept: tuple[tuple[int, ...], bytes] | None, inspect: Inspect | None
    ) -> tuple[tuple[int, ...] | None, bytes]:
        """A file's identity, None if it is too young to be kept, and its hash."""
        path = self._root / file
        try:
            if kept is not None and kept[0] == _identity(path.stat()):
                return kept
            with path.open("rb") as stream:
                identity, begun = _identity(os.fstat(stream.fileno())), time.time()
                content = stream.read()
                same = identity == _identity(os.fstat(stream.fileno()))
        except OSError as error:
            raise ClbenchError(
                f"cannot read the image {path}: {error.strerror or error}"
            ) from error
        if inspect is not None:
            inspect(path, content)
        settled = same and begun - identity[2] / 1e9 > SETTLED
        return identity if settled else None, hashlib.sha256(content).digest()

    def _read(self) -> Known:
        """What is kept; nothing if it is damaged."""
        known: Known = {}
        for path in self._cache.paths(self._name) if self._cache else ():
            known |= _load(path)
        return known

    def _keep(self, new: Known) -> None:
        """Add hashes to those that are kept, unless the folder cannot be written."""
        if self._cache is None:
            return
        path = self._cache.folder / self._name
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                _save(partial, _load(path) | new)
                partial.replace(path)
        except OSError:
            return  # it costs time at the next start, nothing else


def _identity(status: os.stat_result) -> tuple[int, ...]:
    inode = status.st_ino & (2**63 - 1)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def _load(path: Path) -> Known:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            names = stored["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
            identities = stored["identities"].astype(np.int64).reshape(len(names), 4).tolist()
            digests = stored["digests"].astype(np.uint8).reshape(len(names), 32)
    except Exception:  # numpy, zipfile and zlib each raise their own on damaged files
        return {}
    pairs = zip(map(tuple, identities), map(bytes, digests), strict=True)
    return dict(zip(names, pairs, strict=True))


def _save(path: Path, known: Known) -> None:
    names = "\0".join(known).encode("utf-8", "surrogateescape")
    with path.open("wb") as stream:
        np.savez(
            stream,
            names=np.frombuffer(names, dtype=np.uint8),
            identities=np.array([identity for identity, _ in known.values()], dtype=np.int64),
            digests=np.frombuffer(b"".join(d for _, d in known.values()), dtype=np.uint8),
        )
