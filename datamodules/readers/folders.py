"""Data sets without a published split, one folder per class: Caltech101, EuroSAT, SUN397.

Torchvision lists SUN397 in the order of the directory, which differs between file systems; here
all three are sorted, so that the 80/20 split is the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import image_samples, jpegs_in, read_lines, subfolders

BACKGROUND = "BACKGROUND_Google"


def read_caltech101(dataset: DataSet, folder: Path) -> Contents:
    """The categories of Caltech 101 without the background images."""
    images = folder / "101_ObjectCategories"
    names = [name for name in subfolders(images) if name != BACKGROUND]
    return _by_folder(dataset, images, names, names, jpegs_in)


def read_eurosat(dataset: DataSet, folder: Path) -> Contents:
    """The ten land uses of EuroSAT."""
    images = folder / "2750"
    names = subfolders(images)
    return _by_folder(dataset, images, names, names, jpegs_in)


def read_sun397(dataset: DataSet, folder: Path) -> Contents:
    """The scenes that ``ClassName.txt`` lists: ``/a/abbey`` is the folder ``a/abbey``."""
    listed_in, beside = (place / "ClassName.txt" for place in (folder, folder.parent))
    if beside.is_file() and not listed_in.is_file():
        listed_in = beside
    folders = [line.removeprefix("/") for line in read_lines(listed_in)]
    for path in folders:
        if path[1:2] != "/" or ".." in path.split("/"):
            raise ClbenchError(f"{listed_in} has an unexpected line: {path!r}")
    names = [path[2:] for path in folders]
    find = functools.partial(jpegs_in, prefix="sun_", strict=False)  # as torchvision finds them
    return _by_folder(dataset, folder, names, folders, find)


def _by_folder(
    dataset: DataSet,
    images: Path,
    names: list[str],
    folders: list[str],
    find: Callable[[Path], list[str]],
) -> Contents:
    """Everything sorted by path, as training images; the test set is left empty."""
    pairs = sorted(
        (f"{folder}/{file}", label)
        for label, folder in enumerate(folders)
        for file in find(images / folder)
    )
    files, labels = [file for file, _ in pairs], [label for _, label in pairs]
    everything = image_samples(images, files, labels, dataset.classes, images)
    nothing = Samples(np.empty(0, dtype=np.int64), images, files=())
    return Contents(everything, nothing, tuple(names))
