"""Data sets whose splits are text or JSON lists: Aircraft, DTD, Food-101, Oxford-Pet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.core.foreign.json_text import load_json
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import image_samples, read_lines, read_text, subfolders


def read_aircraft(dataset: DataSet, folder: Path) -> Contents:
    """Variants of FGVC-Aircraft: ``train`` without ``val``, as MTIL uses it."""
    names = tuple(read_lines(folder / "variants.txt"))
    train, test = (aircraft_split(dataset, folder, part) for part in ("train", "test"))
    return Contents(train, test, names)


def aircraft_split(dataset: DataSet, folder: Path, part: str) -> Samples:
    """One official split of FGVC-Aircraft: ``train``, ``val`` or ``test``."""
    labels = {name: label for label, name in enumerate(read_lines(folder / "variants.txt"))}
    listed_in = folder / f"images_variant_{part}.txt"
    files, classes = [], []
    for line in read_lines(listed_in):
        image, _, variant = line.partition(" ")
        if variant not in labels:
            raise _unexpected(listed_in, line)
        files.append(f"images/{image}.jpg")
        classes.append(labels[variant])
    found = image_samples(folder, files, classes, dataset.classes, listed_in)
    return replace(found, prefix="data/")


def read_dtd(dataset: DataSet, folder: Path) -> Contents:
    """Split 1 of DTD; classes are the folders, so both splits number them alike."""
    names = tuple(subfolders(folder / "images"))
    labels = {name: label for label, name in enumerate(names)}

    def split(part: str) -> Samples:
        listed_in = folder / "labels" / f"{part}1.txt"
        files, classes = [], []
        for line in read_lines(listed_in):
            name, _, image = line.partition("/")
            if name not in labels or not image or "/" in image:
                raise _unexpected(listed_in, line)
            files.append(f"images/{line}")
            classes.append(labels[name])
        return image_samples(folder, files, classes, dataset.classes, listed_in)

    return Contents(split("train"), split("test"), names)


def read_food(dataset: DataSet, folder: Path) -> Contents:
    """Food-101, from the JSON lists."""
    names = tuple(sorted(read_lines(folder / "meta" / "classes.txt")))

    def split(part: str) -> Samples:
        listed_in = folder / "meta" / f"{part}.json"
        listed = _json_lists(listed_in)
        if sorted(listed) != list(names):
            raise ClbenchError(f"{listed_in} and classes.txt beside it name different classes")
        files = [f"images/{image}.jpg" for name in names for image in listed[name]]
        classes = [label for label, name in enumerate(names) for _ in listed[name]]
        return image_samples(folder, files, classes, dataset.classes, listed_in)

    return Contents(split("train"), split("test"), names)


def _json_lists(path: Path) -> dict[str, list[str]]:
    """A JSON object of lists of relative image paths without suffix."""
    try:
        content = load_json(read_text(path))
    except ValueError as error:
        raise ClbenchError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ClbenchError(f"{path} is not an object of lists")
    for name, images in content.items():
        if not isinstance(images, list) or not all(_is_below(name, image) for image in images):
            raise ClbenchError(f"{path} does not list images of {name!r} as {name}/number")
    return content


def _is_below(name: str, image: object) -> bool:
    return isinstance(image, str) and image.startswith(f"{name}/") and image.count("/") == 1


def read_pets(dataset: DataSet, folder: Path) -> Contents:
    """Oxford-IIIT Pet: ``trainval`` trains; classes are breeds, named by the image files."""
    breeds: dict[int, str] = {}

    def split(part: str) -> Samples:
        listed_in = folder / "annotations" / f"{part}.txt"
        files, classes = [], []
        for line in read_lines(listed_in):
            image, number, *others = [*line.split(), "", ""]
            breed = image.rpartition("_")[0]
            if len(others) != 4 or not number.isdecimal() or not breed:
                raise _unexpected(listed_in, line)
            label = int(number) - 1
            if breeds.setdefault(label, breed) != breed:
                raise ClbenchError(
                    f"{listed_in}: class {number} is {breeds[label]} but also {breed}"
                )
            files.append(f"images/{image}.jpg")
            classes.append(label)
        return image_samples(folder, files, classes, dataset.classes, listed_in)

    train, test = split("trainval"), split("test")
    names = (" ".join(p.title() for p in breeds[i].split("_")) for i in sorted(breeds))
    return Contents(train, test, tuple(names))


def _unexpected(path: Path, line: str) -> ClbenchError:
    return ClbenchError(f"{path} has an unexpected line: {line!r}")
