"""Unpacking tar and zip archives that come from the network."""

from __future__ import annotations

import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, final

from clbench.core.errors import ClbenchError


@final
class DamagedArchiveError(ClbenchError):
    """The archive itself is the fault: truncated, damaged or dangerous."""


#: No data set unpacks to more than this many times its archive (images hardly shrink).
RATIO = 20
SLACK = 64 * 2**20  # bytes, so that small archives of text may shrink more


def unpack(archive: Path, folder: Path) -> None:
    """Unpack files and folders of an archive, tar or zip by its suffix, below a folder.

    Links are never made (no data set needs one), so nothing can be written through them. Owners
    and permissions of the archive are ignored.

    Args:
        archive: the file.
        folder: where to; made if missing. After an error it holds part of the content.

    Raises:
        DamagedArchiveError: the archive is truncated or damaged, a member would leave the folder
            or is a device, or the content is out of proportion to the archive.
        ClbenchError: the disk cannot be written.
    """
    budget = _Budget(archive)
    reader = _zip_members if archive.suffix == ".zip" else _tar_members
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, size, content in reader(archive):
            target = folder / _inside(archive, name)
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            budget.spend(size)
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ClbenchError(f"cannot unpack {archive}: {error.strerror}") from error
        raise DamagedArchiveError(f"{archive} is truncated or damaged: {error}") from error


#: What tarfile, zipfile and the decompressors raise. Errors of the disk have a number, a damaged
#: gzip stream is an OSError without one, and RuntimeError is a zip file with a password.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
)

#: Name, size and content of a file; a folder has no content.
Member = tuple[str, int, IO[bytes] | None]


@final
class _Budget:
    """How much an archive may unpack to."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._left = RATIO * archive.stat().st_size + SLACK if archive.is_file() else 0

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DamagedArchiveError(
                f"{self._archive} unpacks to more than {RATIO} times its size: refused"
            )


def _inside(archive: Path, name: str) -> Path:
    """A member's name as a relative path that stays below the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise DamagedArchiveError(
            f"{archive} holds {name!r}, which would leave its folder: refused"
        )
    return Path(*path.parts)


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isdir():
                yield member.name, 0, None
            elif member.isreg():
                yield member.name, member.size, tar.extractfile(member)
            elif member.issym() or member.islnk():
                base = posixpath.dirname(member.name) if member.issym() else ""
                _inside(archive, posixpath.normpath(posixpath.join(base, member.linkname)))
            else:
                raise DamagedArchiveError(f"{archive} holds {member.name!r}, a device: refused")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if member.is_dir():
                yield member.filename, 0, None
            elif not stat.S_ISLNK(member.external_attr >> 16):
                yield member.filename, member.file_size, packed.open(member)
