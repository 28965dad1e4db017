"""Reading data sets on disk: from a folder in any known layout to files and labels.

Images are not decoded here. Whatever is missing, damaged or unexpected raises an error that
names the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.catalogue.layouts import Place, places
from clbench.datamodules.pixels.samples import Contents
from clbench.datamodules.readers.arrays import read_cifar100, read_mnist
from clbench.datamodules.readers.class_sets import read_cub, read_imagenet_r, read_tinyimagenet
from clbench.datamodules.readers.disk import SurplusError
from clbench.datamodules.readers.domains import read_domainnet
from clbench.datamodules.readers.folders import read_caltech101, read_eurosat, read_sun397
from clbench.datamodules.readers.lists import read_aircraft, read_dtd, read_food, read_pets
from clbench.datamodules.readers.matlab import read_cars, read_flowers

READERS: dict[str, Callable[[DataSet, Path], Contents]] = {
    "Aircraft": read_aircraft,
    "Caltech101": read_caltech101,
    "CIFAR100": read_cifar100,
    "DTD": read_dtd,
    "EuroSAT": read_eurosat,
    "Flowers": read_flowers,
    "Food": read_food,
    "MNIST": read_mnist,
    "OxfordPet": read_pets,
    "StanfordCars": read_cars,
    "SUN397": read_sun397,
    "TinyImageNet": read_tinyimagenet,
    "ImageNet-R": read_imagenet_r,
    "CUB-200": read_cub,
    "DomainNet": read_domainnet,
}


def read(dataset: DataSet, root: Path) -> Contents:
    """Find the images, labels and class names of a data set, without decoding images.

    Order is that of the published lists. Data sets without a published split come sorted by path,
    all of them as training images, with an empty test set.

    Args:
        dataset: entry of the catalogue.
        root: data root, the folder that all data sets lie below.

    Raises:
        MissingDataError: a file or folder is missing.
        ClbenchError: a file is damaged or holds something unexpected.
    """
    return locate(dataset, root)[1]


def locate(dataset: DataSet, root: Path) -> tuple[Place, Contents]:
    """As `read`, with the place where the data set lies.

    Where it lies in several layouts, the first one counts that can be read.
    """
    problem: ClbenchError | None = None
    for place in places(dataset.name, root):
        try:
            return place, READERS[dataset.name](dataset, root / place.folder)
        except ClbenchError as error:
            problem = problem or error
    assert problem is not None
    cure = f"get it again with `clbench data prepare {dataset.name} --root {root}`"
    raise type(problem)(f"{dataset.name}: {problem}; {cure}") from problem


def check_counts(dataset: DataSet, contents: Contents) -> None:
    """Compare with the published sizes and class names.

    Args:
        dataset: entry of the catalogue.
        contents: as read, or already split.

    Raises:
        ClbenchError: says by how much a count differs; a SurplusError if there is too much.
    """
    unsplit = dataset.random_split and not len(contents.test)
    expected = [("classes", len(contents.class_names), dataset.classes)]
    if unsplit or dataset.any_split:
        found_in_all = len(contents.train) + len(contents.test)
        expected += [("images", found_in_all, dataset.total)]
    else:
        expected += [
            ("training images", len(contents.train), dataset.train),
            ("test images", len(contents.test), dataset.test),
        ]
    for what, found, published in expected:
        if found != published:
            less = published - found
            by = f"{less} missing" if less > 0 else f"{-less} too many"
            kind = ClbenchError if less > 0 else SurplusError
            raise kind(f"{dataset.name}: {found} {what}, {published} expected ({by})")
    names = contents.class_names
    if len(set(names)) != len(names):
        raise ClbenchError(f"{dataset.name}: two classes have the same name")
    if dataset.ends is not None and dataset.ends != (names[0], names[-1]):
        raise ClbenchError(
            f"{dataset.name}: classes run from {names[0]!r} to {names[-1]!r}, "
            f"expected from {dataset.ends[0]!r} to {dataset.ends[1]!r}"
        )
