"""What is there of the data sets, what is wrong with it, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet, data_set
from clbench.datamodules.catalogue.remote import RemoteFile
from clbench.datamodules.fetching.download import matches
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import MissingDataError, SurplusError
from clbench.datamodules.readers.read import check_counts, read

Status = Literal["present", "missing", "incomplete", "damaged"]

#: Told how many images have been opened and how many there are.
Advance = Callable[[int, int], None]

SHOWN = 5  # damaged images that a message names


@dataclass(frozen=True)
class State:
    """How far a data set is ready.

    Attributes:
        name: data set.
        status: ``present`` means complete, as far as lists, files and counts tell.
        detail: what was found.
        todo: what to do about it; empty if present.
    """

    name: str
    status: Status
    detail: str
    todo: str


def survey(names: Sequence[str], root: Path) -> list[State]:
    """Look at data sets without opening images.

    Raises:
        ClbenchError: no data set of that name.
    """
    return [_state(data_set(name), root) for name in names]


def require(names: Sequence[str], root: Path) -> None:
    """Refuse to go on unless all data sets are complete.

    Raises:
        ClbenchError: one table of all that are not, with what to do.
    """
    wanting = [state for state in survey(names, root) if state.status != "present"]
    if wanting:
        raise ClbenchError(f"not all data sets are ready:\n{table(wanting)}")


def table(states: Sequence[State]) -> str:
    """Data set, state, and what to do, in plain text."""
    rows = [("data set", "state", "what to do")]
    rows += [(s.name, f"{s.status}: {s.detail}" if s.detail else s.status, s.todo) for s in states]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = (f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows)
    return "\n".join(lines)


def how_to_get(dataset: DataSet, root: Path) -> str:
    """The command that gets a data set, with the size, or where to look for it."""
    command = f"clbench data prepare {dataset.name} --root {root}"
    for source in dataset.sources:
        if source.automatic:
            return f"{command}  ({readable_size(source.size)} from {source.host})"
    folder = root / dataset.folder
    pages = ", ".join(dict.fromkeys(s.page for s in dataset.sources if s.page))
    return f"by hand into {folder} (torchvision's layout), see {pages}; or {command}"


def surplus(folder: Path) -> str:
    """What to do about a folder that holds too much."""
    return f"remove what does not belong into {folder}"


def readable_size(size: int | None) -> str:
    """Bytes in the unit that fits.

    >>> readable_size(625_239_812), readable_size(None)
    ('625 MB', 'size unknown')
    """
    if size is None:
        return "size unknown"
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size = round(size / 1000)
    return f"{size} GB"


def _state(dataset: DataSet, root: Path) -> State:
    name, folder, todo = dataset.name, root / dataset.folder, how_to_get(dataset, root)
    if not folder.is_dir():
        return State(name, "missing", f"no folder {folder}", todo)
    try:
        contents = read(dataset, root)
    except MissingDataError as error:
        return State(name, "incomplete", _bare(name, error), todo)
    except ClbenchError as error:
        return State(name, "damaged", _bare(name, error), todo)
    try:
        check_counts(dataset, contents)
    except SurplusError as error:
        return State(name, "damaged", _bare(name, error), surplus(folder))
    except ClbenchError as error:
        return State(name, "incomplete", _bare(name, error), todo)
    return State(name, "present", f"{len(contents.train) + len(contents.test)} images", "")


def _bare(name: str, error: ClbenchError) -> str:
    """A message without the name and the cure, which have columns of their own."""
    return str(error).removeprefix(f"{name}: ").partition("; get it again")[0]


def check_files(dataset: DataSet, root: Path) -> None:
    """Compare files that are read as they are with their published checksums.

    Raises:
        ClbenchError: names those that differ.
    """
    wrong = []
    for name, md5 in dataset.checksums:
        file = RemoteFile(Path(name).name, None, "", checksum=f"md5:{md5}")
        if (root / name).is_file() and not matches(root / name, file):
            wrong.append(str(root / name))
    if wrong:
        raise ClbenchError(
            f"{dataset.name}: md5 sum differs from the published one: {', '.join(wrong)}; "
            f"delete it, then {how_to_get(dataset, root)}"
        )


def check_images(
    dataset: DataSet, root: Path, contents: Contents, advance: Advance | None = None
) -> None:
    """Decode every image file of a data set; arrays were read already.

    Args:
        dataset: entry of the catalogue.
        root: data root.
        contents: its images.
        advance: called after every image.

    Raises:
        ClbenchError: names the images that cannot be decoded.
    """
    splits = (contents.train, contents.test)
    images = [(split, i) for split in splits if split.files for i in range(len(split))]
    damaged = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, problem in enumerate(pool.map(_decode, images), start=1):
            if problem is not None:
                damaged.append(problem)
            if advance is not None:
                advance(done, len(images))
    if damaged:
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise ClbenchError(
            f"{dataset.name}: {len(damaged)} damaged of {len(images)} images: "
            f"{', '.join(damaged[:SHOWN])}{more}; delete them, then "
            f"`clbench data prepare {dataset.name} --root {root}` fetches what is missing"
        )


def _decode(image: tuple[Samples, int]) -> str | None:
    """The path of an image that cannot be decoded."""
    split, index = image
    try:
        split.image(index)
    except (ClbenchError, Image.DecompressionBombError):
        assert split.files is not None
        return str(split.root / split.files[index])
    return None
