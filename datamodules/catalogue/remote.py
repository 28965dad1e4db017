"""Sources that data can be downloaded from."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class RemoteFile:
    """A file to download, and where its content goes.

    Attributes:
        name: file name.
        url: address; None if it must be downloaded manually.
        target: folder below the data root that it is unpacked or moved into.
        checksum: ``md5:`` or ``sha256:`` and hexadecimal digits; None if unknown.
        size: bytes, for information; None if unknown.
        unpack: pairs (path inside the archive, name below `target`); empty for a plain file.
        inner: archives inside the archive, unpacked beside it first.
    """

    name: str
    url: str | None
    target: str
    checksum: str | None = None
    size: int | None = None
    unpack: tuple[tuple[str, str], ...] = ()
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One way to get a complete data set.

    Attributes:
        title: short name, for messages.
        cite: source of addresses and checksums.
        files: everything that is needed.
        verified: all files have checksums.
        page: page with instructions where files must be downloaded manually.
        note: remark for the user.
    """

    title: str
    cite: str
    files: tuple[RemoteFile, ...] = ()
    verified: bool = True
    page: str | None = None
    note: str = ""

    @property
    def automatic(self) -> bool:
        """Whether every file has an address."""
        return bool(self.files) and all(file.url for file in self.files)

    @property
    def size(self) -> int | None:
        """Bytes to download; None if the size of a file is unknown."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if sizes and len(sizes) == len(self.files) else None

    @property
    def host(self) -> str:
        """The address of the first file, or the page."""
        address = self.files[0].url if self.automatic else self.page
        return urlsplit(address or "").netloc or self.title
