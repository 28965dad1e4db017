"""Writing files so that a crash, a full disk or a second process never leaves half of one.

And hashes that tell whether a file is what was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from clbench.core.errors import ClbenchError

IN_CACHE: Final = "cache:"
"""Begins the names of files in the user's cache folder, in settings that hold on every machine."""


def user_cache() -> Path:
    """The user's cache folder: ``$CLBENCH_CACHE``, else under ``$XDG_CACHE_HOME`` or ``~``."""
    if chosen := os.environ.get("CLBENCH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clbench"


def cached_file(name: str) -> Path | None:
    """The file that ``cache:FILE`` names, existing or not; None for other texts.

    Raises:
        ClbenchError: it lies outside of the cache folder.
    """
    if not name.startswith(IN_CACHE):
        return None
    file = PurePosixPath(name.removeprefix(IN_CACHE))
    if file.is_absolute() or ".." in file.parts:
        raise ClbenchError(f"{name} leads out of the user's cache folder: name the file itself")
    return user_cache() / file


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Replace a file's content in one step: readers see the old file or the new one.

    Args:
        path: the file; missing folders are made.
        content: text is written as UTF-8 with its line ends unchanged.

    Raises:
        ClbenchError: the file cannot be written. The old file, if any, is untouched.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    # In the same folder, because os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ClbenchError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut.

    Raises:
        OSError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system offers that."""
    with suppress(OSError):  # not every file system lets folders be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def round_significant(value: float) -> float:
    """Round to what tables keep: ten significant digits, at most twelve decimals.

    The latter because differences of equal numbers leave traces around 1e-17.

    >>> round_significant(2 / 3), round_significant(0.3 - 0.1 - 0.2), round_significant(12345.678)
    (0.6666666667, 0.0, 12345.678)
    """
    return round(float(f"{value:.10g}"), 12) + 0.0  # adding zero turns -0.0 into 0.0


def content_hash(content: Any) -> str:
    """SHA-256 of a JSON value, whatever its layout and the order of its keys.

    >>> content_hash({"a": 1, "b": [0.5]}) == content_hash({"b": [0.5], "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
