"""Downloading one file: over TLS, resuming earlier attempts, verified by its checksum."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, final

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.remote import RemoteFile

ATTEMPTS = 3
BLOCK = 2**20  # bytes
TIMEOUT = 60.0  # seconds without an answer

#: Called with the file name, the bytes present and the total bytes, if known.
Progress = Callable[[str, int, int | None], None]


class Opener(Protocol):
    """Opens an address from a byte onwards."""

    def __call__(self, url: str, start: int) -> Stream:
        """Open `url`.

        Raises:
            OSError: it cannot be reached or does not have the file.
        """
        ...


@dataclass(frozen=True)
class Stream:
    """The answer of a server.

    Attributes:
        body: what is still to be read.
        start: byte of the file that `body` begins with; 0 where the server cannot resume.
        total: size of the complete file; None if the server does not say.
    """

    body: IO[bytes]
    start: int
    total: int | None


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    opener: Opener | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a file, or use an existing one, and verify its checksum.

    An unfinished download is kept as ``<name>.part`` and resumed by the next call.

    Args:
        file: what to download.
        folder: where to put it; created if missing.
        opener: opens addresses; `open_url` if None.
        progress: called after every block.

    Returns:
        The complete file.

    Raises:
        ClbenchError: no network, no such file, repeated interruptions, a wrong checksum
            (the file is then set aside or removed), or a disk that cannot be written.
    """
    target = folder / file.name
    if target.exists():
        if not matches(target, file):
            problem = f"{target} is truncated or damaged: its {_kind(file)} sum differs"
            raise ClbenchError(f"{problem}; {set_aside(target)}")
        return target
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _DiskError(error.strerror or str(error)) from error
        _download(file, target, opener or open_url, progress or (lambda *_: None))
    except _DiskError as error:
        raise ClbenchError(f"cannot write below {folder}: {error}") from error
    return target


def set_aside(archive: Path) -> str:
    """Set a corrupt archive aside so that the next call downloads it again; returns a message."""
    aside = archive.replace(archive.with_name(archive.name + ".damaged"))
    return f"it is now {aside.name}; run the same command again to download it again"


def matches(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the expected checksum; true if none is known."""
    if file.checksum is None:
        return True
    algorithm, _, expected = file.checksum.partition(":")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest() == expected


def _kind(file: RemoteFile) -> str:
    return (file.checksum or "").partition(":")[0]


@final
class _DiskError(Exception):
    """The disk failed, not the network."""


def _download(file: RemoteFile, target: Path, opener: Opener, progress: Progress) -> None:
    """Try every address a few times; each attempt resumes the last one."""
    part = target.with_name(target.name + ".part")
    problem = ""
    for url in _addresses(file):
        for _ in range(ATTEMPTS):
            before = part.stat().st_size if part.exists() else 0
            try:
                total = _resume(url, part, opener, lambda n, t: progress(file.name, n, t))
            except (OSError, http.client.HTTPException) as error:
                problem = f"cannot fetch {url}: {_reason(error)}"
                if part.exists() and part.stat().st_size > before:
                    continue
                break
            after = part.stat().st_size
            if total is not None and after < total:
                problem = f"{url} broke off after {after} of {total} bytes; {part.name} is kept"
                continue
            if matches(part, file):
                part.replace(target)
                return
            part.unlink()
            problem = f"{url} gave a file whose {_kind(file)} sum differs; it was removed"
            if not before:  # the resumed part may belong to another version: download it all
                break
    by_hand = f"put {file.name} into {target.parent} by hand"
    raise ClbenchError(f"{problem}; run the same command again, or {by_hand}")


def _addresses(file: RemoteFile) -> Iterator[str]:
    """The addresses to try: TLS first; without TLS only if a checksum is known."""
    if file.url is None:
        return
    if file.url.startswith("http://"):
        yield "https://" + file.url.removeprefix("http://")
        if file.checksum is None:
            return
    yield file.url


def _resume(
    url: str, part: Path, opener: Opener, progress: Callable[[int, int | None], None]
) -> int | None:
    """Append what is missing and return the size of the complete file, if known."""
    stream = opener(url, part.stat().st_size if part.exists() else 0)
    with stream.body as body:
        try:
            file = part.open("r+b" if stream.start else "wb")
        except OSError as error:
            raise _DiskError(error.strerror or str(error)) from error
        with file:
            done = file.seek(stream.start)
            while block := body.read(BLOCK):
                try:
                    file.write(block)
                except OSError as error:
                    raise _DiskError(error.strerror or str(error)) from error
                done += len(block)
                progress(done, stream.total)
    return stream.total


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or error
    return str(reason) or type(error).__name__


@final
class _StayOnTLS(urllib.request.HTTPRedirectHandler):
    """Follows redirections unless they leave TLS."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """The next request, or none."""
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, without TLS: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, start: int) -> Stream:
    """Open an address with the standard library, asking for the bytes from `start` on.

    Raises:
        OSError: it cannot be reached, its certificate is wrong, or it does not have the file.
    """
    headers = {"User-Agent": "clbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_StayOnTLS)
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return open_url(url, 0)  # past the end: the partial file is of another version
        raise
    size = answer.headers.get("Content-Length")
    if answer.status == http.client.PARTIAL_CONTENT:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return Stream(answer, start, int(total) if total.isdecimal() else None)
    return Stream(answer, 0, int(size) if size and size.isdecimal() else None)
