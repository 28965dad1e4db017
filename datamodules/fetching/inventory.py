"""Which data sets are present, what is wrong with them, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet, data_set
from clbench.datamodules.catalogue.coop import PAGE, SPLITS
from clbench.datamodules.catalogue.layouts import PLACES, Place, places
from clbench.datamodules.catalogue.remote import RemoteFile, Source
from clbench.datamodules.fetching.download import matches
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.file_hashes import Advance, FileHashes
from clbench.datamodules.pixels.rgb import decode
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.coop import find_list, read_coop
from clbench.datamodules.readers.disk import MissingDataError, SurplusError
from clbench.datamodules.readers.read import check_counts, locate

Splits = Literal["zscl", "coop"]
"""Whose splits of a data set: those of MTIL, or CoOp's."""
Status = Literal["present", "missing", "incomplete", "damaged"]

SHOWN = 5  # damaged images that a message names


@dataclass(frozen=True)
class State:
    """The state of a data set.

    Attributes:
        name: data set.
        status: ``present`` means complete, as far as lists, files and counts tell.
        detail: what was found.
        todo: what to do about it; empty if present.
        layout: whose layout it lies in, and in which folder; empty if missing.
    """

    name: str
    status: Status
    detail: str
    todo: str
    layout: str = ""


def survey(names: Sequence[str], root: Path, splits: Splits = "zscl") -> list[State]:
    """Look at data sets without opening images.

    Args:
        names: the data sets.
        root: data root.
        splits: whose splits are wanted.

    Raises:
        ClbenchError: no data set of that name.
    """
    return [_state(data_set(name), root, splits) for name in names]


def require(names: Sequence[str], root: Path, splits: Splits = "zscl") -> None:
    """Require that all data sets are complete; arguments as in `survey`.

    Raises:
        ClbenchError: a table of the incomplete ones, with what to do.
    """
    wanting = [state for state in survey(names, root, splits) if state.status != "present"]
    if wanting:
        raise ClbenchError(f"not all data sets are ready:\n{table(wanting)}")


def table(states: Sequence[State]) -> str:
    """Data set, state, and what to do, in plain text."""
    rows = [("data set", "state", "what to do")]
    rows += [(s.name, _described(s), s.todo) for s in states]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = (f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows)
    return "\n".join(lines)


def _described(state: State) -> str:
    text = f"{state.status}: {state.detail}"
    return f"{text} ({state.layout})" if state.layout else text


def how_to_get(dataset: DataSet, root: Path) -> str:
    """The command that gets what is missing, with the size, or where to look for it."""
    command = f"clbench data prepare {dataset.name} --root {root}"
    for source in dataset.sources:
        if source.automatic:
            files = files_here(dataset, source, root)
            absent = tuple(file for file in files if not in_place(file, root))
            size = replace(source, files=absent or files).size
            return f"{command}  ({readable_size(size)} from {source.host})"
    folder = root / dataset.folder
    pages = ", ".join(dict.fromkeys(s.page for s in dataset.sources if s.page))
    return f"by hand into {folder} (torchvision's layout), see {pages}; or {command}"


def files_here(dataset: DataSet, source: Source, root: Path) -> tuple[RemoteFile, ...]:
    """The files of a source, with targets in the layout in which a data set lies already."""
    usual, here = PLACES[dataset.name][0], places(dataset.name, root)[0]
    return tuple(
        replace(file, target=here.folder) if file.target == usual.folder else file
        for file in source.files
    )


def in_place(file: RemoteFile, root: Path) -> bool:
    """Whether the target of a file exists; for plain files, whether it is the right one."""
    base = root / file.target
    if file.unpack:
        return all((base / name).exists() for _, name in file.unpack)
    return (base / file.name).is_file() and matches(base / file.name, file)


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


def _state(dataset: DataSet, root: Path, splits: Splits) -> State:
    name, folder, todo = dataset.name, root / dataset.folder, how_to_get(dataset, root)
    if not folder.is_dir() and not any(place.is_taken(root) for place in PLACES[name]):
        return State(name, "missing", f"no folder {folder}{_unusable(name, root)}", todo)
    here = places(name, root)[0]
    if splits == "coop":
        return _coop_state(dataset, root, here)
    try:
        here, contents = locate(dataset, root)
    except MissingDataError as error:
        return State(name, "incomplete", _bare(name, error), todo, _layout(here))
    except ClbenchError as error:
        return State(name, "damaged", _bare(name, error), todo, _layout(here))
    try:
        check_counts(dataset, contents)
    except SurplusError as error:
        top = folder if here == PLACES[name][0] else root / here.folder
        return State(name, "damaged", _bare(name, error), surplus(top), _layout(here))
    except ClbenchError as error:
        return State(name, "incomplete", _bare(name, error), todo, _layout(here))
    return _present(name, contents, here)


def _coop_state(dataset: DataSet, root: Path, here: Place) -> State:
    """The state of CoOp's version of a data set of which something lies in `here`."""
    name, file, layout = dataset.name, SPLITS[dataset.name].file, _layout(here)
    try:
        if file is not None:
            find_list(name, root)
    except MissingDataError:
        todo = f"put it into {root / here.folder}, see {PAGE}"
        return State(name, "incomplete", f"no {file}", todo, layout)
    try:
        contents = read_coop(dataset, root)
    except MissingDataError as error:
        return State(name, "incomplete", _bare(name, error), how_to_get(dataset, root), layout)
    except ClbenchError as error:
        again = how_to_get(dataset, root) if file is None else f"get {file} again, see {PAGE}"
        return State(name, "damaged", _bare(name, error), again, layout)
    return _present(name, contents, here)


def _present(name: str, contents: Contents, here: Place) -> State:
    parts = (contents.train, contents.val, contents.test)
    images = sum(len(part) for part in parts if part is not None)
    return State(name, "present", f"{images} images", "", _layout(here))


def _layout(place: Place) -> str:
    return f"layout of {place.layout}, {place.folder}"


def _unusable(name: str, root: Path) -> str:
    """A remark on copies of a data set that hold other pixels."""
    if name == "CIFAR100" and (root / "cifar100" / "train").is_dir():
        return "; cifar100/train holds JPEG copies of Dassl's, which are other pixels"
    return ""


def _bare(name: str, error: ClbenchError) -> str:
    """A message without the name and the remedy, which have their own columns."""
    return str(error).removeprefix(f"{name}: ").partition("; get it again")[0]


def check_files(dataset: DataSet, root: Path) -> None:
    """Compare files that are not unpacked with their published checksums.

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


def hash_images(contents: Contents, cache: Cache, advance: Advance | None = None) -> None:
    """Take the hash of every image file that is not known yet, so that no run has to.

    Raises:
        ClbenchError: an image cannot be read.
    """
    splits = _of_files(contents)
    total, done = sum(map(len, splits)), 0
    for split in splits:
        told = _shifted(advance, done, total)
        FileHashes(split.root, cache).of(split.files or (), told)
        done += len(split)


def check_images(
    dataset: DataSet,
    root: Path,
    contents: Contents,
    advance: Advance | None = None,
    *,
    cache: Cache | None = None,
) -> None:
    """Read and decode every image file of a data set anew; arrays were read already.

    Args:
        dataset: entry of the catalogue.
        root: data root.
        contents: its images.
        advance: called as images are read.
        cache: where their hashes are kept from time to time.

    Raises:
        ClbenchError: names the images that cannot be decoded, and those that do not hold what they
            held when they were last read.
    """
    damaged: list[str] = []
    changed: list[str] = []
    splits = _of_files(contents)
    total, done = sum(map(len, splits)), 0

    def inspect(path: Path, content: bytes) -> None:
        try:
            decode(path, content)
        except ClbenchError:
            damaged.append(str(path))

    for split in splits:
        told = _shifted(advance, done, total)
        found = FileHashes(split.root, cache).changed(split.files or (), inspect, told)
        changed += [str(split.root / file) for file in found]
        done += len(split)
    problems = []
    if damaged:
        problems.append(
            f"{dataset.name}: {len(damaged)} damaged of {total} images: {_some(sorted(damaged))}; "
            f"delete them, then `clbench data prepare {dataset.name} --root {root}` fetches what "
            "is missing"
        )
    if changed:
        problems.append(
            f"{dataset.name}: {len(changed)} of {total} images do not hold what they held when "
            f"they were last read: {_some(changed)}; put the old ones back, or start runs that "
            "used them again with --fresh"
        )
    if problems:
        raise ClbenchError("\n".join(problems))


def _shifted(advance: Advance | None, done: int, total: int) -> Advance | None:
    """Tell progress of a part as that of the whole."""
    return None if advance is None else lambda part, _: advance(done + part, total)


def _of_files(contents: Contents) -> list[Samples]:
    return [split for split in (contents.train, contents.test) if split.files]


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{', '.join(paths[:SHOWN])}{more}"
