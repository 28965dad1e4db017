"""Writers of small data sets in the formats of the real ones, file by file.

Each writer makes the folder that a complete download leaves below the root, with few classes and
tiny images, and returns the counts to declare. Images cycle through the kinds that the real data
sets contain: RGB, grayscale, CMYK and EXIF-rotated JPEG, palette and 16-bit PNG named .jpg.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

Counts = tuple[int, int, int]
"""Classes, training images and test images, the latter two after the 80/20 split."""

CLASSES = 3
TRAIN = 6  # images per class, so that five shots can be drawn
TEST = 2
UNSPLIT = 12  # images per class where the data set has no split of its own
CIFAR_CLASSES = 100
KINDS = ("RGB", "L", "CMYK", "P", "I;16", "rotated")
ORIENTATION = 0x0112  # EXIF tag


def write_all(root: Path) -> dict[str, Counts]:
    """Write all eleven data sets below `root`; CIFAR-100 with all of its 100 classes."""
    return {name: write(root) for name, write in WRITERS.items()}


def picture(label: int, number: int, size: int = 40) -> Image.Image:
    """An RGB image, wider than high, whose colour tells the class and whose noise the number."""
    random = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(40, 216, 3)
    noise = random.integers(-40, 40, (size, size + 8, 3))
    return Image.fromarray((colour + noise).astype(np.uint8))


def write_image(path: Path, label: int, number: int) -> None:
    """Write one image of the kind that `number` selects, whatever the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, image = KINDS[number % len(KINDS)], picture(label, number)
    if kind == "I;16":
        gray = np.asarray(image.convert("L"), dtype=np.uint16) * 257
        Image.fromarray(gray).save(path, "PNG")
    elif kind == "P":
        image.convert("P", palette=Image.Palette.ADAPTIVE).save(path, "PNG")
    elif kind == "rotated":
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        image.save(path, "JPEG", exif=exif)
    else:
        image.convert(kind).save(path, "JPEG")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _unsplit(classes: int = CLASSES, per_class: int = UNSPLIT) -> Counts:
    total = classes * per_class
    return classes, int(0.8 * total), total - int(0.8 * total)


def _split() -> Counts:
    return CLASSES, CLASSES * TRAIN, CLASSES * TEST


def _numbered(images: int, classes: int = CLASSES) -> list[tuple[int, int]]:
    """Pairs (number from 1, label) with the classes mixed, as in the real lists."""
    return [(n + 1, n % classes) for n in range(images * classes)]


def write_aircraft(root: Path) -> Counts:
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "F/A-18", "Spitfire"]
    write_lines(data / "variants.txt", variants)
    pairs = _numbered(TRAIN + TEST + 1)
    ids = {n: f"{1000000 + 37 * n:07d}" for n, _ in pairs}
    cut = (CLASSES * TRAIN, CLASSES * (TRAIN + 1), len(pairs))
    parts = {"train": pairs[: cut[0]], "val": pairs[cut[0] : cut[1]], "test": pairs[cut[1] :]}
    parts["trainval"] = parts["train"] + parts["val"]
    for split, part in parts.items():
        lines = [f"{ids[n]} {variants[label]}" for n, label in part]
        write_lines(data / f"images_variant_{split}.txt", lines)
    for n, label in pairs:
        write_image(data / "images" / f"{ids[n]}.jpg", label, n)
    return _split()


def write_caltech101(root: Path) -> Counts:
    folder = root / "caltech101" / "101_ObjectCategories"
    write_image(folder / "BACKGROUND_Google" / "image_0001.jpg", 9, 0)
    for label, name in enumerate(["Faces", "Faces_easy", "Leopards"]):
        for n in range(UNSPLIT):
            write_image(folder / name / f"image_{n + 1:04d}.jpg", label, n)
    return _unsplit()


def write_cifar100(root: Path, classes: int = CIFAR_CLASSES) -> Counts:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    names = ["apple", "aquarium_fish", "baby", *(f"thing_{i}" for i in range(3, classes))]
    for split, per_class in (("train", TRAIN), ("test", TEST)):
        pairs = _numbered(per_class, classes)
        images = np.stack([np.asarray(picture(c, n, 32))[:, :32] for n, c in pairs])
        rows = images.transpose(0, 3, 1, 2).reshape(len(pairs), -1)
        entry = {
            b"filenames": [b"image_s_%06d.png" % n for n, _ in pairs],
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": [label for _, label in pairs],
            b"coarse_labels": [label % 20 for _, label in pairs],
            b"data": np.ascontiguousarray(rows),
        }
        (folder / split).write_bytes(python2_pickle(entry))
    meta = {
        b"fine_label_names": [name.encode() for name in names[:classes]],
        b"coarse_label_names": [b"group_%d" % i for i in range(20)],
    }
    (folder / "meta").write_bytes(python2_pickle(meta))
    return classes, classes * TRAIN, classes * TEST


def python2_pickle(value: object) -> bytes:
    """Pickle the way Python 2 did with protocol 2: byte strings, and NumPy's old module names."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bytes):
        size = len(value)
        return (b"U" + bytes([size]) if size < 256 else b"T" + struct.pack("<i", size)) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, dict):
        items = (_opcodes(part) for item in value.items() for part in item)
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, np.ndarray):
        return _array_opcodes(value)
    raise TypeError(f"no opcodes for {value!r}")


def _array_opcodes(array: NDArray[np.uint8]) -> bytes:
    assert array.dtype == np.uint8
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
    dtype += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    shape, raw = _opcodes(array.shape), _opcodes(array.tobytes())
    return empty + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def write_dtd(root: Path) -> Counts:
    folder = root / "dtd" / "dtd"
    names = ["banded", "blotchy", "zigzagged"]
    for split, numbers in {
        "train": range(TRAIN),
        "val": range(TRAIN, TRAIN + 1),
        "test": range(TRAIN + 1, TRAIN + 1 + TEST),
    }.items():
        lines = []
        for label, name in enumerate(names):
            for n in numbers:
                lines.append(f"{name}/{name}_{n + 1:04d}.jpg")
                write_image(folder / "images" / lines[-1], label, n)
        write_lines(folder / "labels" / f"{split}1.txt", lines)
    return _split()


def write_eurosat(root: Path) -> Counts:
    folder = root / "eurosat" / "2750"
    for label, name in enumerate(["AnnualCrop", "Forest", "HerbaceousVegetation"]):
        for n in range(UNSPLIT):
            write_image(folder / name / f"{name}_{n + 1}.jpg", label, n)
    return _unsplit()


def write_flowers(root: Path) -> Counts:
    folder = root / "flowers-102"
    pairs = _numbered(TRAIN + TEST + 1)
    for n, label in pairs:
        write_image(folder / "jpg" / f"image_{n:05d}.jpg", label, n)
    numbers = np.array([n for n, _ in pairs], dtype=np.uint16)
    cut = [CLASSES * TRAIN, CLASSES * (TRAIN + 1)]
    train, valid, test = np.split(numbers, cut)
    sets = {"trnid": train[::-1], "valid": valid, "tstid": test}  # the real ones are not in order
    scipy.io.savemat(folder / "setid.mat", {key: ids[None] for key, ids in sets.items()})
    labels = np.array([[label + 1 for _, label in pairs]], dtype=np.uint8)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    return _split()


def write_food(root: Path) -> Counts:
    folder = root / "food-101"
    names = ["apple_pie", "baby_back_ribs", "baklava"]
    write_lines(folder / "meta" / "classes.txt", names)
    write_lines(folder / "meta" / "labels.txt", [name.replace("_", " ").title() for name in names])
    for split, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        files = {name: [f"{name}/{100 + n}" for n in numbers] for name in names}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(files))
        write_lines(folder / "meta" / f"{split}.txt", [f for fs in files.values() for f in fs])
        for label, name in enumerate(names):
            for n in numbers:
                write_image(folder / "images" / name / f"{100 + n}.jpg", label, n)
    return _split()


def write_mnist(root: Path, *, compressed: bool = False) -> Counts:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for split, per_class in (("train", TRAIN), ("t10k", TEST)):
        pairs = _numbered(per_class)
        images = np.stack([np.asarray(picture(c, n, 28).convert("L"))[:, :28] for n, c in pairs])
        labels = np.array([label for _, label in pairs], dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            content, name = header + array.tobytes(), f"{split}-{kind}-ubyte"
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return _split()


def write_pets(root: Path) -> Counts:
    folder = root / "oxford-iiit-pet"
    breeds = [("Abyssinian", 1), ("american_bulldog", 2), ("Bengal", 1)]
    for split, numbers in (("trainval", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        lines = []
        for label, (breed, species) in enumerate(breeds):
            for n in numbers:
                lines.append(f"{breed}_{n + 1} {label + 1} {species} {label + 1}")
                write_image(folder / "images" / f"{breed}_{n + 1}.jpg", label, n)
        write_lines(folder / "annotations" / f"{split}.txt", lines)
    return _split()


def write_cars(root: Path) -> Counts:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True, exist_ok=True)
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]
    cells = np.array([names], dtype=object)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cells})
    for split, per_class, file in (
        ("train", TRAIN, "devkit/cars_train_annos.mat"),
        ("test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        pairs = _numbered(per_class)
        fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
        annotations = np.empty((1, len(pairs)), dtype=[(field, object) for field in fields])
        for row, (n, label) in enumerate(pairs):
            annotations[0, row] = (1, 1, 30, 30, np.uint8(label + 1), f"{n:05d}.jpg")
            write_image(folder / f"cars_{split}" / f"{n:05d}.jpg", label, n)
        scipy.io.savemat(folder / file, {"annotations": annotations})
    return _split()


def write_sun397(root: Path) -> Counts:
    folder = root / "SUN397"
    names = ["/a/abbey", "/a/apartment_building/outdoor", "/y/youth_hostel"]
    write_lines(folder / "ClassName.txt", names)
    for label, name in enumerate(names):
        for n in range(UNSPLIT):
            write_image(folder / name[1:] / f"sun_{'zyxwvutsrqpo'[n]}{label}.jpg", label, n)
    return _unsplit()


WRITERS: dict[str, Callable[[Path], Counts]] = {
    "Aircraft": write_aircraft,
    "Caltech101": write_caltech101,
    "CIFAR100": write_cifar100,
    "DTD": write_dtd,
    "EuroSAT": write_eurosat,
    "Flowers": write_flowers,
    "Food": write_food,
    "MNIST": write_mnist,
    "OxfordPet": write_pets,
    "StanfordCars": write_cars,
    "SUN397": write_sun397,
}
