"""The small data sets in CoOp's folders, with CoOp's lists beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.datamodules.disk_formats import WRITERS

Sizes = tuple[int, int, int, int]
"""Classes, training, validation and test images."""

FOLDERS = {
    "Aircraft": ("fgvc-aircraft-2013b/data", "fgvc_aircraft"),
    "Caltech101": ("caltech101", "caltech-101"),
    "CIFAR100": ("cifar-100-python", "cifar100"),
    "DTD": ("dtd/dtd", "dtd"),
    "EuroSAT": ("eurosat", "eurosat"),
    "Flowers": ("flowers-102", "oxford_flowers"),
    "Food": ("food-101", "food-101"),
    "MNIST": ("MNIST/raw", "mnist"),
    "OxfordPet": ("oxford-iiit-pet", "oxford_pets"),
    "StanfordCars": ("stanford_cars", "stanford_cars"),
    "SUN397": ("SUN397", "sun397/SUN397"),
}
"""Torchvision's folder and CoOp's, or that of DIKI where CoOp has no such data set."""

LISTS = {
    "Caltech101": ("split_zhou_Caltech101.json", "101_ObjectCategories", "."),
    "DTD": ("split_zhou_DescribableTextures.json", "images", "."),
    "EuroSAT": ("split_zhou_EuroSAT.json", "2750", "."),
    "Flowers": ("split_zhou_OxfordFlowers.json", "jpg", "."),
    "Food": ("split_zhou_Food101.json", "images", "."),
    "OxfordPet": ("split_zhou_OxfordPets.json", "images", "."),
    "StanfordCars": ("split_zhou_StanfordCars.json", "", "."),
    "SUN397": ("split_zhou_SUN397.json", "", ".."),
}
"""List, folder that its paths begin in, and where it lies, seen from CoOp's folder."""

CLASSES = {
    "Caltech101": {"Faces": "face", "Leopards": "leopard"},  # Faces_easy is ignored
    "DTD": {n: n for n in ("banded", "blotchy", "zigzagged")},
    "EuroSAT": {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
    },
    "Food": {n: n for n in ("apple_pie", "baby_back_ribs", "baklava")},
    "OxfordPet": {n: n.lower() for n in ("Abyssinian", "american_bulldog", "Bengal")},
    "SUN397": {
        "a/abbey": "abbey",
        "a/apartment_building/outdoor": "outdoor apartment_building",
        "y/youth_hostel": "youth_hostel",
    },
}
FLOWERS = ["pink primrose", "hard-leaved pocket orchid", "canterbury bells"]
CARS = ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Acura TL Sedan"]


def write_coop(root: Path) -> dict[str, Sizes]:
    """Write all eleven data sets as CoOp and DIKI lay them out, and return their sizes."""
    sizes: dict[str, Sizes] = {}
    for name, write in WRITERS.items():
        source = root / "torchvision"
        classes, train, test = write(source)
        old, new = FOLDERS[name]
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (source / old).rename(root / new)
        if name == "Flowers":
            (root / new / "setid.mat").unlink()  # CoOp's instructions do not mention it
        sizes[name] = (classes, train, 3 if name == "Aircraft" else 0, test)
        if name in LISTS:
            sizes[name] = write_list(root, name)
    return sizes


def write_list(root: Path, name: str) -> Sizes:
    """Write CoOp's list: per class half of the images, a fifth and the rest, shuffled."""
    file, images, place = LISTS[name]
    folder = root / FOLDERS[name][1]
    rng = random.Random(name)
    parts: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    by_class = _by_class(folder / images, name)
    for label, (class_name, files) in enumerate(by_class):
        rng.shuffle(files)
        train, val = round(0.5 * len(files)), round(0.2 * len(files))
        cuts = {"train": (0, train), "val": (train, train + val), "test": (train + val, None)}
        for part, (first, last) in cuts.items():
            parts[part] += [(path, label, class_name) for path in files[first:last]]
    (folder / place / file).write_text(json.dumps(parts, indent=4, separators=(",", ": ")))
    train, val, test = (len(rows) for rows in parts.values())
    return len(by_class), train, val, test


def _by_class(folder: Path, name: str) -> list[tuple[str, list[str]]]:
    """Class names in label order, with their images."""
    if name == "Flowers":  # the writer mixes the classes
        files = sorted(p.name for p in folder.iterdir())
        return [
            (c, [f for f in files if (int(f[6:11]) - 1) % 3 == i]) for i, c in enumerate(FLOWERS)
        ]
    if name == "StanfordCars":
        files = sorted(str(p.relative_to(folder)) for p in folder.glob("cars_*/*.jpg"))
        return [(c, [f for f in files if (int(f[-9:-4]) - 1) % 3 == i]) for i, c in enumerate(CARS)]
    if name == "OxfordPet":
        every = sorted(p.name for p in folder.iterdir())
        return [
            (c, [f for f in every if f.rpartition("_")[0] == d]) for d, c in CLASSES[name].items()
        ]
    return [
        (c, sorted(f"{d}/{p.name}" for p in (folder / d).iterdir() if p.is_file()))
        for d, c in CLASSES[name].items()
    ]
