"""CoOp's splits: ``split_zhou_*.json``, read where they lie beside the images.

A list is an object with the keys ``train``, ``val`` and ``test``; its rows are
``[path, label, class name]``. Aircraft has official lists of all three, MNIST and CIFAR-100 have
no list and keep their official split.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.foreign.json_text import load_json
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.catalogue.coop import PAGE, SPLITS, CoopSplit
from clbench.datamodules.catalogue.layouts import places
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import (
    MissingDataError,
    SurplusError,
    image_samples,
    read_bytes,
)
from clbench.datamodules.readers.lists import aircraft_split
from clbench.datamodules.readers.read import locate

PARTS = ("train", "val", "test")


def read_coop(dataset: DataSet, root: Path) -> Contents:
    """A data set with CoOp's training, validation and test images and class names.

    Args:
        dataset: entry of the catalogue.
        root: data root.

    Raises:
        MissingDataError: the list or an image is missing.
        ClbenchError: the list is damaged or unexpected, or has other sizes than CoOp's.
    """
    split = SPLITS[dataset.name]
    if split.file is not None:
        contents = _read_list(dataset, split, root, find_list(dataset.name, root))
    elif dataset.name == "Aircraft":
        place, official = locate(dataset, root)
        val = aircraft_split(dataset, root / place.folder, "val")
        contents = Contents(official.train, official.test, official.class_names, val)
    else:
        contents = locate(dataset, root)[1]
    _check_sizes(dataset, split, contents)
    return contents


def find_list(name: str, root: Path) -> Path:
    """The list of a data set, in one of the folders where it may lie or in the one above.

    Raises:
        MissingDataError: there is no list; says where to put it.
    """
    file = SPLITS[name].file or ""
    found = places(name, root)
    for place in found:
        folder = PurePosixPath(place.folder)
        for beside in dict.fromkeys((folder, folder.parent)):
            if beside.name and (root / beside / file).is_file():
                return root / beside / file
    expected = root / found[0].folder / file
    raise MissingDataError(f"{name}: CoOp's split {expected} is missing; get it from {PAGE}")


def _read_list(dataset: DataSet, split: CoopSplit, root: Path, path: Path) -> Contents:
    """The images that a list names, of the first place where all of them lie."""
    problem: MissingDataError | None = None
    for place in places(dataset.name, root):
        try:
            return _read_from(dataset, split, root / place.folder / split.images, path)
        except MissingDataError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _read_from(dataset: DataSet, split: CoopSplit, images: Path, path: Path) -> Contents:
    content = read_bytes(path)
    try:
        lists = load_json(content.decode("utf-8"))
    except ValueError as error:
        raise ClbenchError(f"{dataset.name}: {path} is damaged: {error}") from error
    if not isinstance(lists, dict) or not all(isinstance(lists.get(k), list) for k in PARTS):
        raise ClbenchError(f"{dataset.name}: {path} has no lists 'train', 'val' and 'test'")
    names: dict[int, str] = {}
    train, val, test = (
        _samples(dataset.name, lists[key], names, split.sizes[0], images, path) for key in PARTS
    )
    if sorted(names) != list(range(len(names))):
        raise ClbenchError(f"{dataset.name}: {path} skips a label: {sorted(names)[-1]} is the last")
    every = [file for part in (train, val, test) for file in part.files or ()]
    if len(set(every)) < len(every):
        raise ClbenchError(f"{dataset.name}: {path} has an image in two of its lists")
    digest = hashlib.sha256(content).hexdigest()
    return Contents(train, test, tuple(names[y] for y in sorted(names)), val, {path.name: digest})


def _samples(
    name: str, rows: list[Any], names: dict[int, str], classes: int, images: Path, path: Path
) -> Samples:
    """The images of one list; class names are added to `names`."""
    files, labels = [], []
    for row in rows:
        if not _is_row(row):
            raise ClbenchError(f"{name}: {path} has an unexpected row: {row!r:.100}")
        file, label, class_name = row
        if names.setdefault(label, class_name) != class_name:
            raise ClbenchError(
                f"{name}: {path} calls class {label} {names[label]!r} but also {class_name!r}"
            )
        files.append(file)
        labels.append(label)
    try:
        return image_samples(images, files, labels, classes, path)
    except ClbenchError as error:
        raise type(error)(f"{name}: {error}") from error


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 3:
        return False
    file, label, class_name = row
    if not isinstance(file, str) or type(label) is not int or not isinstance(class_name, str):
        return False
    return not file.startswith("/") and ".." not in file.split("/")


def _check_sizes(dataset: DataSet, split: CoopSplit, contents: Contents) -> None:
    val = 0 if contents.val is None else len(contents.val)
    found = (len(contents.class_names), len(contents.train), val, len(contents.test))
    kinds = ("classes", "training images", "validation images", "test images")
    for kind, here, expected in zip(kinds, found, split.sizes, strict=True):
        if here != expected:
            error = ClbenchError if here < expected else SurplusError
            raise error(f"{dataset.name}: {here} {kind} in CoOp's split, {expected} expected")
