"""Writers of small TinyImageNet, ImageNet-R and CUB-200 trees in the formats of the real ones."""

from __future__ import annotations

from pathlib import Path

from clbench.datamodules.catalogue.class_lists import class_list
from tests.datamodules.disk_formats import Counts, picture, write_lines

CLASSES = 200
TRAIN = 2  # images per class
TEST = 1


def save(path: Path, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(label, number, 8).save(path, "JPEG")


def write_tinyimagenet(root: Path) -> Counts:
    """The folder of ``tiny-imagenet-200.zip``."""
    folder, ids = root / "tiny-imagenet-200", list(class_list("TinyImageNet").names)
    write_lines(folder / "wnids.txt", ids)
    write_lines(folder / "words.txt", [f"{i}\t{i}, and so on" for i in ids])
    for label, wordnet in enumerate(ids):
        for n in range(TRAIN):
            save(folder / "train" / wordnet / "images" / f"{wordnet}_{n}.JPEG", label, n)
        boxes = [f"{wordnet}_{n}.JPEG\t0\t32\t44\t62" for n in range(TRAIN)]
        write_lines(folder / "train" / wordnet / f"{wordnet}_boxes.txt", boxes)
    lines = []
    for n in range(CLASSES * TEST):
        label = 37 * n % CLASSES  # mixed, as in the real list
        lines.append(f"val_{n}.JPEG\t{ids[label]}\t0\t32\t44\t62")
        save(folder / "val" / "images" / f"val_{n}.JPEG", label, 90 + n)
    write_lines(folder / "val" / "val_annotations.txt", lines)
    save(folder / "test" / "images" / "test_0.JPEG", 0, 0)
    return CLASSES, CLASSES * TRAIN, CLASSES * TEST


def write_imagenet_r(root: Path) -> Counts:
    """The folder of ``imagenet-r.tar``, with RAPF's list in it."""
    folder, ids = root / "imagenet-r", list(class_list("ImageNet-R").names)
    parts: dict[str, list[str]] = {"train": [], "test": []}
    write_lines(folder / "README.txt", ["ImageNet-R"])
    for label in (3, *range(3), *range(4, CLASSES)):  # the real list is not sorted
        names = ["art_0.jpg", "cartoon_12.jpg", "sketch_3.jpg"]
        for n, name in enumerate(names):
            save(folder / ids[label] / name, label, n)
            parts["train" if n < TRAIN else "test"].append(f"{ids[label]}/{name}")
    lines = [line for part, files in parts.items() for line in (part, *files)]
    write_lines(folder / "imgr_train_test_split.txt", lines)
    return CLASSES, CLASSES * TRAIN, CLASSES * TEST


def write_cub(root: Path) -> Counts:
    """The folder of ``CUB_200_2011.tgz``."""
    folder = root / "CUB_200_2011"
    names = [f"{i + 1:03d}.Bird_{i}" for i in range(CLASSES)]
    names[0], names[-1] = "001.Black_footed_Albatross", "200.Common_Yellowthroat"
    images, labels, split = [], [], []
    for label, name in enumerate(names):
        for n in range(TRAIN + TEST):
            number = len(images) + 1
            file = f"{name}/{name[4:]}_{n:04d}_{number}.jpg"
            save(folder / "images" / file, label, n)
            images.append(f"{number} {file}")
            labels.append(f"{number} {label + 1}")
            split.append(f"{number} {int(n != 1)}")
    write_lines(folder / "classes.txt", [f"{i + 1} {name}" for i, name in enumerate(names)])
    write_lines(folder / "images.txt", images)
    write_lines(folder / "image_class_labels.txt", labels)
    write_lines(folder / "train_test_split.txt", split)
    return CLASSES, CLASSES * TRAIN, CLASSES * TEST
