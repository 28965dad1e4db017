"""Flickr30k and COCO with captions, in Karpathy's test splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from clbench.core.errors import ClbenchError
from clbench.core.foreign.json_text import load_json
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.samples import Samples

if TYPE_CHECKING:
    from clbench.core.probe import CaptionedSet

CAPTIONS: Final = 5
"""Captions of an image that count; a few images of COCO have more."""
PAGE: Final = "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"


@dataclass(frozen=True)
class Collection:
    """A data set of images with captions.

    Attributes:
        file: Karpathy's file, below the data root, in the folder of the data set or beside it.
        folders: where the images may lie below the folder of the data set.
        images: images of the test split.
        page: where the images come from.
    """

    file: str
    folders: tuple[str, ...]
    images: int
    page: str


COLLECTIONS: Final[dict[str, Collection]] = {
    "flickr30k": Collection(
        "dataset_flickr30k.json",
        ("flickr30k-images", "flickr30k_images", "images"),
        1000,
        "shannon.cs.illinois.edu/DenotationGraph",
    ),
    "coco": Collection("dataset_coco.json", (".", "images"), 5000, "cocodataset.org"),
}


class _Sentence(BaseModel):
    raw: str


class _Image(BaseModel):
    """An entry of Karpathy's file; COCO's images lie in the folder `filepath`."""

    filename: str
    split: str
    sentences: Annotated[list[_Sentence], Field(min_length=1)]
    filepath: str = ""


_IMAGES: Final = TypeAdapter(list[_Image])


def captioned_sets(
    root: Path, size: int, cache: Cache, *, quick: bool = False, quiet: bool = True
) -> tuple[CaptionedSet, ...]:
    """The test splits that lie in the data root.

    Args:
        root: the data root.
        size: side of the images.
        cache: where decoded images are kept.
        quick: few images only.
        quiet: show no progress.

    Raises:
        ClbenchError: a file is damaged, or images are missing.
    """
    # torch takes seconds to import, and `locate` does without.
    from clbench.core.probe import CaptionedSet
    from clbench.datamodules.pixels.decoded import QUICK_TEST, Decoded

    sets = []
    for name in COLLECTIONS:
        file = _file(name, root)
        if file is None:
            continue
        files, captions = _read(name, root, file)
        if quick:
            files, captions = files[:QUICK_TEST], captions[:QUICK_TEST]
        samples = Samples(np.zeros(len(files), dtype=np.int64), root / name, files=tuple(files))
        images = Decoded.of(samples, size, None if quick else cache, f"{name}-test")
        images.file.hash_images(quiet=quiet)
        images.prepare(quiet=quiet)
        pairs = [(text, i) for i, texts in enumerate(captions) for text in texts]
        texts, owners = zip(*pairs, strict=True)
        sets.append(CaptionedSet(name, images, texts, owners))
    return tuple(sets)


def put_where(root: Path) -> dict[str, str]:
    """Where each data set is looked for, and where it comes from."""
    found = {}
    for name, known in COLLECTIONS.items():
        images = "val2014/*.jpg" if name == "coco" else f"{known.folders[0]}/*.jpg"
        folder = root / name
        found[name] = f"{folder / known.file} (from {PAGE}) and {folder / images} ({known.page})"
    return found


def locate(name: str, root: Path) -> Path | None:
    """Karpathy's file of a data set whose test images are there; None if there is no such file.

    Raises:
        ClbenchError: the file is damaged, or images are missing.
    """
    file = _file(name, root)
    if file is not None:
        _read(name, root, file)
    return file


def _file(name: str, root: Path) -> Path | None:
    """Karpathy's file, in the folder of the data set or in the data root."""
    file = COLLECTIONS[name].file
    return next((path for path in (root / name / file, root / file) if path.is_file()), None)


def _read(name: str, root: Path, file: Path) -> tuple[list[str], list[list[str]]]:
    """Files of the test images, relative to the data set's folder, and their captions."""
    known = COLLECTIONS[name]
    try:
        content = load_json(file.read_text(encoding="utf-8"))
        entries = _IMAGES.validate_python(content["images"])
    except (OSError, ValueError, LookupError, TypeError, ValidationError) as error:
        reason = "not Karpathy's format" if isinstance(error, ValidationError) else error
        raise ClbenchError(f"{file} cannot be read: {reason}; get it again from {PAGE}") from error
    test = [entry for entry in entries if entry.split == "test"]
    if len(test) != known.images:
        raise ClbenchError(f"{file} has {len(test)} test images, not {known.images}: see {PAGE}")
    files = [_image(name, root, entry) for entry in test]
    return files, [[s.raw.strip() for s in entry.sentences[:CAPTIONS]] for entry in test]


def _image(name: str, root: Path, entry: _Image) -> str:
    """The file of an image, relative to the folder of its data set.

    Raises:
        ClbenchError: it is missing, or its name leads out of the folder.
    """
    known, inner = COLLECTIONS[name], f"{entry.filepath}/{entry.filename}".lstrip("/")
    if ".." in Path(inner).parts:
        raise ClbenchError(f"{known.file} has an unexpected file name: {inner!r}")
    for folder in known.folders:
        path = Path(folder) / inner
        if (root / name / path).is_file():
            return path.as_posix()
    raise ClbenchError(
        f"{name}: there is no image {root / name / known.folders[0] / inner}: put the images of "
        f"{known.page} there"
    )
