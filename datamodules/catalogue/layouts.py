"""Where data sets lie below a data root: in torchvision's folders, and in those of other code.

Sources: torchvision 0.29; DATASETS.md of CoOp (github.com/KaiyangZhou/CoOp), whose code is built on
Dassl; docs/datasets.md of DIKI (github.com/lloongx/DIKI); ``scenario_datasets`` of RAIL
(github.com/linghan1997/Regression-based-Analytic-Incremental-Learning). The X-TAIL mirror
(modelscope.cn/datasets/ForestLuo/X-TAIL) could not be listed: its folders are those that notes on
it give.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Place:
    """One place where a data set may lie.

    Attributes:
        layout: whose layout it is.
        folder: below the data root; what the data set's reader is given.
        marks: files or folders of which at least one lies in it.
    """

    layout: str
    folder: str
    marks: tuple[str, ...]

    def is_taken(self, root: Path) -> bool:
        """Whether something of the data set lies there."""
        return any((root / self.folder / mark).exists() for mark in self.marks)


TORCHVISION: Final = "torchvision"
COOP: Final = "CoOp"
BOTH: Final = "torchvision and CoOp"
MIRROR: Final = "X-TAIL mirror"

_MNIST = ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
_FOLDERS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "Aircraft": (
        ("variants.txt", "images"),
        (
            (TORCHVISION, "fgvc-aircraft-2013b/data"),
            (COOP, "fgvc_aircraft"),
            (MIRROR, "Aircraft"),
        ),
    ),
    "Caltech101": (
        ("101_ObjectCategories",),
        (
            ("torchvision and RAIL", "caltech101"),
            (COOP, "caltech-101"),
            (MIRROR, "Caltech101"),
        ),
    ),
    "CIFAR100": (
        ("meta",),
        (
            (TORCHVISION, "cifar-100-python"),
            ("DIKI", "cifar100"),
            ("continuum", "cifar100/cifar-100-python"),
        ),
    ),
    "DTD": (
        ("images", "labels"),
        ((TORCHVISION, "dtd/dtd"), (COOP, "dtd"), (MIRROR, "DTD")),
    ),
    "EuroSAT": (("2750",), ((BOTH, "eurosat"), (MIRROR, "EuroSAT"))),
    "Flowers": (
        ("jpg", "imagelabels.mat"),
        ((TORCHVISION, "flowers-102"), (COOP, "oxford_flowers"), (MIRROR, "Flowers")),
    ),
    "Food": (("images", "meta"), ((BOTH, "food-101"), (MIRROR, "Food"))),
    "MNIST": (
        _MNIST,
        ((TORCHVISION, "MNIST/raw"), ("DIKI", "mnist"), (MIRROR, "MNIST/MNIST/raw")),
    ),
    "OxfordPet": (
        ("images", "annotations"),
        ((TORCHVISION, "oxford-iiit-pet"), (COOP, "oxford_pets"), (MIRROR, "Pets")),
    ),
    "StanfordCars": (
        ("cars_train", "cars_test", "devkit"),
        ((BOTH, "stanford_cars"), (MIRROR, "StanfordCars")),
    ),
    "SUN397": (
        ("a", "ClassName.txt"),
        ((TORCHVISION, "SUN397"), (COOP, "sun397/SUN397"), (MIRROR, "Sun397/SUN397")),
    ),
    "TinyImageNet": (
        ("wnids.txt", "train"),
        (
            ("the archive", "tiny-imagenet-200"),
            ("continuum", "tinyimagenet/tiny-imagenet-200"),
        ),
    ),
    "ImageNet-R": (
        ("train", "n01443537"),
        (("the archive", "imagenet-r"), (COOP, "imagenet-rendition/imagenet-r")),
    ),
    "CUB-200": (("images.txt", "images"), (("the archive", "CUB_200_2011"),)),
    "DomainNet": (
        ("clipart", "clipart_train.txt"),
        (("its page and Dassl", "domainnet"), ("its page", "DomainNet")),
    ),
}

PLACES: Final[dict[str, tuple[Place, ...]]] = {
    name: tuple(Place(layout, folder, marks) for layout, folder in folders)
    for name, (marks, folders) in _FOLDERS.items()
}
"""Where each data set may lie, torchvision's place first."""


def places(name: str, root: Path) -> tuple[Place, ...]:
    """The places where something of a data set lies; torchvision's if there is none."""
    return tuple(p for p in PLACES[name] if p.is_taken(root)) or PLACES[name][:1]
