"""Archives and a server for tests of downloads: no network, no waiting."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import zipfile
from pathlib import Path
from typing import IO

from clbench.datamodules.catalogue.remote import RemoteFile
from clbench.datamodules.fetching.download import Stream


class Server:
    """Answers like a file server that can resume; counts what it was asked for."""

    def __init__(self, files: dict[str, bytes] | None = None, *, resumes: bool = True) -> None:
        self.files = files or {}
        self.resumes = resumes
        self.breaks: list[int] = []
        """How many bytes each of the next answers gives before it breaks off."""
        self.asked: list[tuple[str, int]] = []

    def __call__(self, url: str, start: int) -> Stream:
        self.asked.append((url, start))
        if url not in self.files:
            raise urllib.error.URLError("Name or service not known")
        content = self.files[url]
        start = start if self.resumes and start < len(content) else 0
        end = start + self.breaks.pop(0) if self.breaks else len(content)
        return Stream(io.BytesIO(content[start:end]), start, len(content))


class BrokenBody(io.BytesIO):
    """A connection that is reset after its content."""

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        if not block:
            raise ConnectionResetError("connection reset by peer")
        return block


def remote(
    name: str, content: bytes | None, *, target: str = "", checksum: bool = True, **other: object
) -> RemoteFile:
    """A file at https://host/<name> with the right md5 sum."""
    digest = f"md5:{hashlib.md5(content).hexdigest()}" if checksum and content else None
    return RemoteFile(name, f"https://host/{name}", target, checksum=digest, **other)  # type: ignore[arg-type]


def tar_bytes(folder: Path, *names: str, mode: str = "w:gz") -> bytes:
    """A tar archive of files and folders below a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name in names:
            tar.add(folder / name, arcname=name)
    return buffer.getvalue()


def tar_of(*members: tuple[tarfile.TarInfo, IO[bytes] | None]) -> bytes:
    """A tar archive of hand-made members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, content)
    return buffer.getvalue()


def member(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, IO[bytes]]:
    """A file of a tar archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, io.BytesIO(content)


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, None]:
    """A link or device of a tar archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, None


def zip_bytes(folder: Path, renamed: dict[str, str]) -> bytes:
    """A zip archive of everything below subfolders, under other names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, outside in renamed.items():
            for path in sorted((folder / name).rglob("*")):
                if path.is_file():
                    packed.write(path, f"{outside}/{path.relative_to(folder / name)}")
    return buffer.getvalue()
