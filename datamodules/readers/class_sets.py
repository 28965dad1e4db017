"""The class-incremental data sets beside CIFAR-100: TinyImageNet, ImageNet-R and CUB-200."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.catalogue.class_lists import class_list
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import (
    MissingDataError,
    image_samples,
    images_in,
    read_bytes,
    read_lines,
    subfolders,
)

SPLIT_LIST = "imgr_train_test_split.txt"
"""RAPF's split of ImageNet-R."""


def read_tinyimagenet(dataset: DataSet, folder: Path) -> Contents:
    """Tiny ImageNet; labels are the lines of ``wnids.txt``, the validation images test."""
    listed_in = folder / "wnids.txt"
    ids = read_lines(listed_in)
    names = _names(dataset, ids, listed_in)
    labels = {wordnet: label for label, wordnet in enumerate(ids)}
    files, classes = [], []
    for wordnet in ids:
        found = images_in(folder / "train" / wordnet / "images", ".JPEG")
        files += [f"train/{wordnet}/images/{file}" for file in found]
        classes += [labels[wordnet]] * len(found)
    train = image_samples(folder, files, classes, dataset.classes, folder / "train")
    annotated = folder / "val" / "val_annotations.txt"
    files, classes = [], []
    for line in read_lines(annotated):
        file, wordnet = [*line.split("\t"), "", ""][:2]
        if wordnet not in labels:
            raise _unexpected(annotated, line)
        files.append(f"val/images/{file}")
        classes.append(labels[wordnet])
    test = image_samples(folder, files, classes, dataset.classes, annotated)
    return Contents(train, test, names)


def read_imagenet_r(dataset: DataSet, folder: Path) -> Contents:
    """ImageNet-R, split by RAPF's list or in folders ``train`` and ``test``; labels by WordNet id.

    It has no official split.
    """
    listed_in = folder / SPLIT_LIST
    if not listed_in.is_file():
        listed_in = folder.parent / SPLIT_LIST
    if listed_in.is_file():
        return _listed_imagenet_r(dataset, folder, listed_in)
    if not (folder / "train").is_dir():
        raise MissingDataError(
            f"{folder / SPLIT_LIST} (from github.com/linlany/RAPF, imgr_split/), or the folders "
            f"train/ and test/ in its place, are missing"
        )
    ids = subfolders(folder / "train")

    def split(part: str) -> Samples:
        files, classes = [], []
        for label, wordnet in enumerate(ids):
            found = images_in(folder / part / wordnet, ".jpg")
            files += [f"{part}/{wordnet}/{file}" for file in found]
            classes += [label] * len(found)
        return image_samples(folder, files, classes, dataset.classes, folder / part)

    return Contents(split("train"), split("test"), _names(dataset, ids, folder / "train"))


def _listed_imagenet_r(dataset: DataSet, folder: Path, listed_in: Path) -> Contents:
    """The line ``train``, paths ``<WordNet id>/<file>``, the line ``test`` and more paths."""
    lines = read_lines(listed_in)
    if lines[0] != "train" or lines.count("test") != 1:
        raise ClbenchError(f"{listed_in} has no lines 'train' (first) and 'test'")
    cut = lines.index("test")
    ids = sorted({line.partition("/")[0] for line in (*lines[1:cut], *lines[cut + 1 :])})
    labels = {wordnet: label for label, wordnet in enumerate(ids)}

    def part(files: Sequence[str]) -> Samples:
        for file in files:
            if file.count("/") != 1 or ".." in file:
                raise _unexpected(listed_in, file)
        classes = [labels[file.partition("/")[0]] for file in files]
        return image_samples(folder, files, classes, dataset.classes, listed_in)

    digest = hashlib.sha256(read_bytes(listed_in)).hexdigest()
    names = _names(dataset, ids, listed_in)
    return Contents(part(lines[1:cut]), part(lines[cut + 1 :]), names, lists={SPLIT_LIST: digest})


def read_cub(dataset: DataSet, folder: Path) -> Contents:
    """CUB-200-2011 with its official split; class names are those of ``classes.txt``."""
    tables = {
        name: _numbered(folder / f"{name}.txt")
        for name in ("classes", "images", "image_class_labels", "train_test_split")
    }
    images, classes = tables["images"], tables["classes"]
    for name in ("image_class_labels", "train_test_split"):
        if tables[name].keys() != images.keys():
            raise ClbenchError(f"{folder / name}.txt and images.txt beside it number other images")
    places = {number: label for label, number in enumerate(classes)}

    def part(wanted: str) -> Samples:
        chosen = [n for n, flag in tables["train_test_split"].items() if flag == wanted]
        try:
            labels = [places[tables["image_class_labels"][n]] for n in chosen]
        except KeyError as error:
            raise ClbenchError(f"{folder / 'classes.txt'} has no class {error}") from error
        files = [f"images/{images[n]}" for n in chosen]
        return image_samples(folder, files, labels, dataset.classes, folder / "images.txt")

    names = tuple(name.partition(".")[2] for name in classes.values())
    return Contents(part("1"), part("0"), names)


def _numbered(path: Path) -> dict[str, str]:
    """Lines ``<number> <value>``, by number."""
    found: dict[str, str] = {}
    for line in read_lines(path):
        number, space, value = line.partition(" ")
        if not space or number in found:
            raise _unexpected(path, line)
        found[number] = value
    return found


def _names(dataset: DataSet, ids: Sequence[str], listed_in: Path) -> tuple[str, ...]:
    """Names of the classes with these WordNet ids, which must be those of the published list."""
    names = class_list(dataset.name).names
    expected = list(names)[: dataset.classes] if dataset.declared else list(names)
    if list(ids) != expected:
        wrong = next((i for i, j in zip(ids, expected, strict=False) if i != j), None)
        raise ClbenchError(
            f"{listed_in} has {len(ids)} classes, {len(expected)} expected"
            if wrong is None
            else f"{listed_in} has the class {wrong} where the published list has another"
        )
    return tuple(names[wordnet] for wordnet in ids)


def _unexpected(path: Path, line: str) -> ClbenchError:
    return ClbenchError(f"{path} has an unexpected line: {line!r}")
