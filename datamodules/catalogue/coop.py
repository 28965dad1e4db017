"""CoOp's version of the data sets: other splits and class lists than MTIL's.

The splits are files ``split_zhou_*.json`` that lie beside each data set. Sizes are those of CoOp's
paper (arXiv 2109.01134), templates those of its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class CoopSplit:
    """How CoOp splits a data set.

    Attributes:
        file: the list, beside the data set; None where the official split is used.
        images: folder that the list's paths begin in, below what the data set's reader is given.
        sizes: classes, training, validation and test images; validation images are 0 where there
            are none.
        template: prompt of CoOp's code; None for data sets that CoOp does not have.
    """

    file: str | None
    images: str
    sizes: tuple[int, int, int, int]
    template: str | None


SPLITS: Final[dict[str, CoopSplit]] = {
    "Aircraft": CoopSplit(
        None, "", (100, 3334, 3333, 3333), "a photo of a {}, a type of aircraft."
    ),
    "Caltech101": CoopSplit(
        "split_zhou_Caltech101.json",
        "101_ObjectCategories",
        (100, 4128, 1649, 2465),
        "a photo of a {}.",
    ),
    "CIFAR100": CoopSplit(None, "", (100, 50000, 0, 10000), None),
    "DTD": CoopSplit(
        "split_zhou_DescribableTextures.json", "images", (47, 2820, 1128, 1692), "{} texture."
    ),
    "EuroSAT": CoopSplit(
        "split_zhou_EuroSAT.json",
        "2750",
        (10, 13500, 5400, 8100),
        "a centered satellite photo of {}.",
    ),
    "Flowers": CoopSplit(
        "split_zhou_OxfordFlowers.json",
        "jpg",
        (102, 4093, 1633, 2463),
        "a photo of a {}, a type of flower.",
    ),
    "Food": CoopSplit(
        "split_zhou_Food101.json",
        "images",
        (101, 50500, 20200, 30300),
        "a photo of {}, a type of food.",
    ),
    "MNIST": CoopSplit(None, "", (10, 60000, 0, 10000), None),
    "OxfordPet": CoopSplit(
        "split_zhou_OxfordPets.json",
        "images",
        (37, 2944, 736, 3669),
        "a photo of a {}, a type of pet.",
    ),
    "StanfordCars": CoopSplit(
        "split_zhou_StanfordCars.json", "", (196, 6509, 1635, 8041), "a photo of a {}."
    ),
    "SUN397": CoopSplit(
        "split_zhou_SUN397.json", "", (397, 15880, 3970, 19850), "a photo of a {}."
    ),
}

PAGE: Final = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
"""Names an address on Google Drive for each of the lists."""


@contextmanager
def declared_splits(sizes: Mapping[str, tuple[int, int, int, int]]) -> Iterator[None]:
    """Expect other sizes than the published ones, e.g. of small copies in tests."""
    before = {name: SPLITS[name] for name in sizes}
    SPLITS.update({name: replace(before[name], sizes=sizes[name]) for name in sizes})
    try:
        yield
    finally:
        SPLITS.update(before)
