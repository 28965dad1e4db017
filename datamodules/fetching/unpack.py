"""Unpacking tar and zip archives that come from the network."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast, final

from clbench.core.errors import ClbenchError
from clbench.core.foreign.sizes import GROWTH, most_bytes
from clbench.datamodules.readers.disk import MACS_FOLDER


@final
class DamagedArchiveError(ClbenchError):
    """The archive is truncated, damaged or dangerous."""


BLOCK = 2**18
"""Bytes read at once."""
MEMBER = 4096
"""Bytes that a file or folder takes on a disk at least."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""Errors of the disk, which are not the archive's fault."""
PACKED: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": cast(Any, gzip.GzipFile),
    b"BZh": cast(Any, bz2.BZ2File),
    b"\xfd7zXZ": cast(Any, lzma.LZMAFile),
}
"""How compressed tar archives begin, and what opens them."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack files and folders of an archive, tar or zip by its suffix, below a folder.

    Links are never made (no data set needs one), so nothing can be written through them. Owners
    and permissions of the archive are ignored.

    Args:
        archive: the file.
        folder: target; created if missing. After an error it holds part of the content.

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
            inside = _inside(archive, name)
            if MACS_FOLDER in inside.parts:
                continue
            budget.spend(MEMBER + size)
            target = folder / inside
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
    except ClbenchError:
        raise
    except Exception as error:  # archives, decompressors and paths fail in any way
        if isinstance(error, OSError) and error.errno in FULL:
            raise ClbenchError(f"cannot unpack {archive}: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedArchiveError(f"{archive} is truncated or damaged: {reason:.200}") from error


#: Name, size and content of a file; a folder has no content.
Member = tuple[str, int, IO[bytes] | None]


@final
class _Budget:
    """How much an archive may unpack to."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._left = most_bytes(archive.stat().st_size) if archive.is_file() else 0

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DamagedArchiveError(
                f"{self._archive} unpacks to more than {GROWTH} times its size: refused"
            )


@final
class _Metered:
    """A decompressed stream that counts what is read: the headers of members can be huge, too."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._budget.spend(len(content))
        return content


def _inside(archive: Path, name: str) -> Path:
    """A member's name as a relative path that stays below the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise DamagedArchiveError(
            f"{archive} holds {name!r}, which would leave its folder: refused"
        )
    return Path(*path.parts)


def _tar_members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        begin = file.read(8)
    openers = [opener for magic, opener in PACKED.items() if begin.startswith(magic)]
    with openers[0](archive) if openers else archive.open("rb") as stream:
        metered: Any = _Metered(stream, _Budget(archive))
        with tarfile.open(fileobj=metered, mode="r|", bufsize=BLOCK) as tar:
            yield from _members_of(archive, tar)


def _members_of(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
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
