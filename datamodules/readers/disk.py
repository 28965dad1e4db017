"""Reading lists and folders of a data set, with errors for what is missing or unexpected."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels.samples import Samples


@final
class MissingDataError(ClbenchError):
    """A file or folder of a data set is missing; nothing is known to be damaged."""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped; blank ones at the end are dropped.

    Raises:
        MissingDataError: no such file.
        ClbenchError: the file cannot be read, is empty or has a blank line.
    """
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not lines or not all(lines):
        raise ClbenchError(f"{path} is empty or has a blank line")
    return lines


def read_text(path: Path) -> str:
    """A text file as UTF-8, with the errors of `read_lines`."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClbenchError(f"{path} is damaged: {error}") from error


def read_bytes(path: Path) -> bytes:
    """A file's content, with the errors of `read_lines`."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError(f"{path} is missing") from error
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror or error}") from error


@final
class SurplusError(ClbenchError):
    """There is more than belongs to a data set; to fetch it again would not help."""


MACS_FOLDER = "__MACOSX"
"""What macOS adds to zip files; no data set has it."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is none of the data."""
    return name.startswith(".") or name == MACS_FOLDER


def subfolders(folder: Path) -> list[str]:
    """Names of the folders inside a folder, sorted by code point; without hidden ones."""
    return sorted(e.name for e in _entries(folder) if e.is_dir())


def jpegs_in(folder: Path, prefix: str = "", *, strict: bool = True) -> list[str]:
    """Names of the ``.jpg`` files in a folder, sorted by code point; without hidden ones.

    Args:
        folder: where to look; not below it.
        prefix: what the names begin with.
        strict: refuse files with other names instead of leaving them out.

    Raises:
        MissingDataError: no such folder.
        ClbenchError: a file has an unexpected name.
    """
    names = sorted(e.name for e in _entries(folder) if e.is_file())
    chosen = [name for name in names if name.startswith(prefix) and name.endswith(".jpg")]
    if strict and len(chosen) < len(names):
        other = next(name for name in names if name not in chosen)
        raise ClbenchError(
            f"unexpected file {folder / other}: only {prefix}*.jpg belong there; remove it"
        )
    return chosen


def images_in(folder: Path, suffix: str) -> list[str]:
    """Names of the files with a suffix in a folder, sorted by code point; without hidden ones.

    Raises:
        MissingDataError: no such folder.
    """
    return sorted(e.name for e in _entries(folder) if e.is_file() and e.name.endswith(suffix))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError(f"the folder {folder} is missing") from error
    except OSError as error:
        raise ClbenchError(f"cannot read {folder}: {error.strerror or error}") from error


def image_samples(
    root: Path, files: Sequence[str], labels: Sequence[int], classes: int, listed_in: Path
) -> Samples:
    """One split of image files, after checking that all of them exist.

    Args:
        root: folder of the data set.
        files: paths below `root`, with forward slashes.
        labels: class of each, from 0.
        classes: number of classes.
        listed_in: file or folder that names them, for messages.

    Raises:
        MissingDataError: files that do not exist; names the first.
        ClbenchError: a label out of range, or a file listed twice.
    """
    checked = check_labels(labels, classes, listed_in)
    if len(set(files)) != len(files):
        twice, _ = Counter(files).most_common(1)[0]
        raise ClbenchError(f"{listed_in} lists {twice} twice")
    missing = _absent(root, files)
    if missing:
        others = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
        raise MissingDataError(f"{root / missing[0]}{others}, listed in {listed_in}, is missing")
    return Samples(checked, root, files=tuple(files))


def check_labels(
    labels: Sequence[int] | NDArray[np.integer], classes: int, listed_in: Path
) -> NDArray[np.int64]:
    """Labels as int64, all of them from 0 to `classes` - 1.

    Raises:
        ClbenchError: one is not; names the file.
    """
    array = np.asarray(labels, dtype=np.int64)
    wrong = array[(array < 0) | (array >= classes)]
    if len(wrong):
        raise ClbenchError(
            f"{listed_in} has label {wrong[0]}, counted from 0, but there are {classes} classes"
        )
    return array


def _absent(root: Path, files: Sequence[str]) -> list[str]:
    """The files that do not exist; each folder is listed once instead of checking every file."""
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folders[file.rpartition("/")[0]].append(file)
    absent: list[str] = []
    for folder, members in folders.items():
        try:
            present = {f"{folder}/{name}".lstrip("/") for name in os.listdir(root / folder)}  # noqa: PTH208
        except OSError:
            present = set()
        absent += [file for file in members if file not in present]
    return absent
