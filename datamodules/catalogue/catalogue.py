"""The eleven data sets of MTIL, with their published sizes, in the order that MTIL calls I."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.task import ClassTexts
from clbench.datamodules.catalogue import sources
from clbench.datamodules.catalogue.remote import Source


@dataclass(frozen=True)
class DataSet:
    """The catalogue entry of a data set.

    Attributes:
        name: as MTIL calls it.
        title: its full name.
        folder: below the data root, as torchvision lays it out, so that its downloads are found.
        classes: number of classes.
        train: number of training images; after the 80/20 split where there is no published one.
        test: the same of test images.
        page: the data set's own page.
        ends: first and last class name on disk; None if no file names the classes.
        checksums: pairs (file below the data root, md5) of files that are not unpacked.
        random_split: no published split: 80 % of the shuffled images train, the rest test.
        sources: where it can be downloaded, tried in this order.
        declared: whether the sizes come from `declared_counts` and not from publications.
        any_split: no published split that could be checked: only the sum of images is known.
    """

    name: str
    title: str
    folder: str
    classes: int
    train: int
    test: int
    page: str
    ends: tuple[str, str] | None
    checksums: tuple[tuple[str, str], ...] = ()
    random_split: bool = False
    sources: tuple[Source, ...] = ()
    declared: bool = False
    any_split: bool = False

    @property
    def total(self) -> int:
        """Images of both splits."""
        return self.train + self.test


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"

#: The data sets by name, in MTIL's order I.
CATALOG: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            "Aircraft",
            "FGVC-Aircraft, variants",
            "fgvc-aircraft-2013b",
            100,
            3334,
            3333,
            f"{_VGG}/fgvc-aircraft/",
            ends=("707-320", "Yak-42"),
            sources=(sources.AIRCRAFT, sources.BY_HAND),
        ),
        DataSet(
            "Caltech101",
            "Caltech 101",
            "caltech101",
            101,
            6941,
            1736,
            "https://data.caltech.edu/records/mzrjq-6wc02",
            ends=("Faces", "yin_yang"),
            random_split=True,
            sources=(sources.CALTECH101, sources.BY_HAND),
        ),
        DataSet(
            "CIFAR100",
            "CIFAR-100",
            "cifar-100-python",
            100,
            50000,
            10000,
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            ends=("apple", "worm"),
            checksums=(  # torchvision/datasets/cifar.py
                ("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
                ("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
                ("cifar-100-python/meta", "7973b15100ade9c7d40fb424638fde48"),
            ),
            sources=(sources.CIFAR100, sources.BY_HAND),
        ),
        DataSet(
            "DTD",
            "Describable Textures, split 1",
            "dtd",
            47,
            1880,
            1880,
            f"{_VGG}/dtd/",
            ends=("banded", "zigzagged"),
            sources=(sources.DTD, sources.BY_HAND),
        ),
        DataSet(
            "EuroSAT",
            "EuroSAT, RGB",
            "eurosat",
            10,
            21600,
            5400,
            "https://github.com/phelber/eurosat",
            ends=("AnnualCrop", "SeaLake"),
            random_split=True,
            sources=(sources.EUROSAT, sources.EUROSAT_ZENODO, sources.BY_HAND),
        ),
        DataSet(
            "Flowers",
            "Oxford 102 Flower",
            "flowers-102",
            102,
            1020,
            6149,
            f"{_VGG}/flowers/102/",
            ends=None,
            checksums=(  # torchvision/datasets/flowers102.py
                ("flowers-102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
                ("flowers-102/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
            ),
            sources=(sources.FLOWERS, sources.BY_HAND),
        ),
        DataSet(
            "Food",
            "Food-101",
            "food-101",
            101,
            75750,
            25250,
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
            ends=("apple_pie", "waffles"),
            sources=(sources.FOOD, sources.BY_HAND),
        ),
        DataSet(
            "MNIST",
            "MNIST",
            "MNIST",
            10,
            60000,
            10000,
            "http://yann.lecun.com/exdb/mnist/",
            ends=None,
            checksums=tuple(
                (f"{f.target}/{f.name}", (f.checksum or "").removeprefix("md5:"))
                for f in sources.MNIST.files
            ),
            sources=(sources.MNIST, sources.MNIST_GOOGLE, sources.BY_HAND),
        ),
        DataSet(
            "OxfordPet",
            "Oxford-IIIT Pet",
            "oxford-iiit-pet",
            37,
            3680,
            3669,
            f"{_VGG}/pets/",
            ends=("Abyssinian", "Yorkshire Terrier"),
            sources=(sources.PETS, sources.BY_HAND),
        ),
        DataSet(
            "StanfordCars",
            "Stanford Cars",
            "stanford_cars",
            196,
            8144,
            8041,
            "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
            ends=("AM General Hummer SUV 2000", "smart fortwo Convertible 2012"),
            sources=(sources.CARS, sources.BY_HAND),
        ),
        DataSet(
            "SUN397",
            "SUN397 scenes",
            "SUN397",
            397,
            87003,
            21751,
            "https://vision.princeton.edu/projects/2010/SUN/",
            ends=("abbey", "youth_hostel"),
            random_split=True,
            sources=(sources.SUN397, sources.BY_HAND),
        ),
    )
}


#: Data sets of other benchmarks, by name.
OTHERS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            "TinyImageNet",
            "Tiny ImageNet; its validation images test",
            "tiny-imagenet-200",
            200,
            100000,
            10000,
            "http://cs231n.stanford.edu/",
            ends=("Egyptian Mau", "African bush elephant"),
            sources=(sources.TINYIMAGENET,),
        ),
        DataSet(
            "ImageNet-R",
            "ImageNet-R (renditions)",
            "imagenet-r",
            200,
            24000,
            6000,
            "https://github.com/hendrycks/imagenet-r",
            ends=("goldfish", "acorn"),
            sources=(sources.IMAGENET_R,),
            any_split=True,
        ),
        DataSet(
            "CUB-200",
            "Caltech-UCSD Birds-200-2011",
            "CUB_200_2011",
            200,
            5994,
            5794,
            "https://data.caltech.edu/records/65de6-vp158",
            ends=("Black_footed_Albatross", "Common_Yellowthroat"),
            sources=(sources.CUB200,),
        ),
        DataSet(
            "DomainNet",
            "DomainNet, cleaned: six kinds of images of the same classes",
            "domainnet",
            345,
            409832,
            176743,
            "https://ai.bu.edu/M3SDA/",
            ends=("aircraft_carrier", "zigzag"),
            sources=(sources.DOMAINNET,),
        ),
    )
}


@contextmanager
def declared_counts(counts: Mapping[str, tuple[int, int, int]]) -> Iterator[None]:
    """Expect other sizes than the published ones, e.g. of small copies in tests.

    Checksums and class names of the complete data sets are then not required.

    Args:
        counts: classes, training images and test images of each data set concerned.
    """
    before = {name: data_set(name) for name in counts}
    for name, (classes, train, test) in counts.items():
        _catalog_of(name)[name] = replace(
            before[name],
            classes=classes,
            train=train,
            test=test,
            ends=None,
            checksums=(),
            declared=True,
        )
    try:
        yield
    finally:
        for name, entry in before.items():
            _catalog_of(name)[name] = entry


def _catalog_of(name: str) -> dict[str, DataSet]:
    return CATALOG if name in CATALOG else OTHERS


def data_set(name: str) -> DataSet:
    """The entry of a data set.

    Raises:
        ClbenchError: no such data set; names the nearest one.
    """
    found = CATALOG.get(name) or OTHERS.get(name)
    if found is None:
        raise unknown_name("data set", name, [*CATALOG, *OTHERS])
    return found


class _Prompts(TypedDict, total=False):
    classnames: list[str]
    templates: list[str]


@functools.cache
def _prompts() -> dict[str, _Prompts]:
    text = Path(__file__).with_name("prompts.json").read_text(encoding="utf-8")
    return cast(dict[str, _Prompts], json.loads(text))


def published_names(name: str) -> tuple[str, ...] | None:
    """Class names that the protocol gives, in label order; None where it uses those on disk."""
    names = _prompts()[name].get("classnames")
    return None if names is None else tuple(names)


def class_texts(name: str, class_names: Sequence[str], *, as_on_disk: bool = False) -> ClassTexts:
    """The prompts of a data set: the first template trains, all are averaged at test.

    Names of the protocol replace those on disk label by label, so both lists have one length;
    only a data set whose size was declared smaller (`declared_counts`) takes the first of them.

    Args:
        name: data set, or ``CIFAR100-CIL`` for the template of the class-incremental protocol.
        class_names: names on disk, in label order.
        as_on_disk: leave underscores in them instead of writing spaces.

    Raises:
        ClbenchError: unknown name, or another number of classes than names in the protocol.
    """
    if name not in _prompts() or name.startswith("_"):
        raise unknown_name("data set", name, CATALOG)
    names = [text if as_on_disk else text.replace("_", " ") for text in class_names]
    published = published_names(name)
    if published is not None:
        if len(names) != len(published) and not (
            CATALOG[name].declared and len(names) == CATALOG[name].classes
        ):
            raise ClbenchError(
                f"{name}: {len(names)} classes, but the protocol names {len(published)}"
            )
        names = list(published[: len(names)])
    return ClassTexts.from_templates(names, _prompts()[name]["templates"])


def coop_texts(name: str, class_names: Sequence[str]) -> ClassTexts:
    """The prompts of a data set in CoOp's version: its own names, the first template only."""
    names = [text.replace("_", " ") for text in class_names]
    return ClassTexts.from_templates(names, _prompts()[name]["templates"][:1])
