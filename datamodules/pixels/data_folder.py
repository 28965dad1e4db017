"""Where data sets lie, and where files are kept that cost time to make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clbench.core.files import user_cache


@dataclass(frozen=True)
class Cache:
    """A folder of files that cost time to make: index files, decoded images, hashes.

    Attributes:
        folder: where they are written.
        shared: where they may have been written by others; only read.
    """

    folder: Path
    shared: Path | None = None

    def within(self, name: str) -> Cache:
        """The folder of this name in both places."""
        return Cache(self.folder / name, None if self.shared is None else self.shared / name)

    def paths(self, name: str) -> tuple[Path, ...]:
        """Where a file may lie, the one that is written last."""
        places = (self.shared, self.folder)
        return tuple(place / name for place in places if place is not None)

    def path(self, name: str) -> Path:
        """Where a file lies, or is to be written if there is none."""
        *shared, own = self.paths(name)
        return next((path for path in shared if path.is_file()), own)


def data_folder(data_root: str | Path | None) -> Path:
    """Where data sets lie: as given, or in the user's cache folder."""
    return Path(data_root).expanduser() if data_root else user_cache() / "data"


def data_cache(data_root: str | Path | None, cache_root: str | Path | None) -> Cache:
    """Where what is made of data sets is kept.

    That is `cache_root` if it is given, else the folder of the data sets, or the user's cache
    folder where that cannot be written. What lies beside the data sets is used in any case.
    """
    root = data_folder(data_root)
    if cache_root:
        folder = Path(cache_root).expanduser()
    else:
        folder = root if _is_writable(root) else user_cache() / "data"
    return Cache(folder, None if folder == root else root)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK)
