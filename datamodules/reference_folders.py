"""Folders of images and files of texts that reference data come from, and what they are called."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.file_hashes import FileHashes
from clbench.datamodules.pixels.rgb import SUFFIXES, decode

if TYPE_CHECKING:
    from timm.data.imagenet_info import ImageNetInfo

OWN_SOURCES: Final = ("task", "benchmark")
"""Sources that are no files of their own."""
IMAGENET: Final = "imagenet"
CONCEPTUAL_CAPTIONS: Final = "conceptual-captions"
IMAGE_FOLDERS: Final = {
    IMAGENET: "imagenet/train",
    CONCEPTUAL_CAPTIONS: "conceptual_captions/images",
}
"""Where in the data folder the images of named sources lie."""
CAPTIONS_FILE: Final = "conceptual_captions/Validation_GCC-1.1.0-Validation.tsv"
"""The captions of Conceptual Captions' validation split, below the data folder."""
READERS: Final = 8
"""Images read at the same time, at most."""


class ImageFolder:
    """The images of a folder, in its class folders or anywhere below it.

    Args:
        source: `IMAGENET`, `CONCEPTUAL_CAPTIONS` or the path of a folder.
        root: the data folder, for named sources.

    Attributes:
        path: the folder.
        paths: its images, sorted.

    Raises:
        ClbenchError: the folder is missing or holds no images.
    """

    def __init__(self, source: str, root: Path) -> None:
        below = IMAGE_FOLDERS.get(source)
        self.path = Path(source).expanduser() if below is None else root / below
        if not self.path.is_dir():
            raise ClbenchError(_missing(source, self.path))
        found = self.path.rglob("*")
        self.paths = sorted(p for p in found if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise ClbenchError(
                f"no images in {self.path}: expected {self.path}/<class name>/<image>.jpg"
            )
        self._source = source
        self._digest: str | None = None

    def digest(self, cache: Cache | None, *, quiet: bool = False) -> str:
        """SHA-256 over names and contents of all images, taken once.

        Args:
            cache: where the hashes of files are kept; None means nowhere.
            quiet: show no progress.

        Raises:
            ClbenchError: an image cannot be read.
        """
        if self._digest is None:
            names = [path.relative_to(self.path).as_posix() for path in self.paths]
            hashes = FileHashes(self.path, cache).of_all(names, self.path.name, quiet=quiet)
            sha = hashlib.sha256(json.dumps(names).encode())
            sha.update(hashes.tobytes())
            self._digest = sha.hexdigest()
        return self._digest

    @property
    def title(self) -> str:
        """What the folder is, for result files: ImageNet by its 1000 classes, else its path."""
        if self._source == CONCEPTUAL_CAPTIONS:
            return "Conceptual Captions"
        classes = {path.parent.name for path in self.paths if path.parent.parent == self.path}
        return "ImageNet-1k" if classes == _imagenet_ids() else str(self.path)

    def captions(self) -> list[str]:
        """One caption per image: "a photo of a {class}", the class being its folder's name.

        Raises:
            ClbenchError: an image lies in no class folder.
        """
        for path in self.paths:
            if path.parent.parent != self.path:
                raise ClbenchError(
                    f"{path} has no caption: images that need one lie in folders named by their "
                    f"class, {self.path}/<class name>/<image>.jpg"
                )
        return [caption(path.parent.name) for path in self.paths]

    def read(self, indices: Sequence[int], size: int) -> Tensor:
        """Some of the images, ``(B, 3, size, size)`` uint8: shorter side resized, centre cropped.

        Raises:
            ClbenchError: an image cannot be read.
        """
        chosen = [self.paths[i] for i in indices]
        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
            return torch.stack([*pool.map(lambda path: read_image(path, size), chosen)])


def read_texts(source: str, root: Path) -> tuple[str, ...]:
    """The lines of a text file that are not empty; of a ``.tsv`` file the first column.

    Args:
        source: `CONCEPTUAL_CAPTIONS` or the path of a file.
        root: the data folder, for named sources.

    Raises:
        ClbenchError: it cannot be read, or has none.
    """
    path = text_file(source, root)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        advice = "" if source != CONCEPTUAL_CAPTIONS else _without(source, "captions")
        raise ClbenchError(f"cannot read the texts in {path}: {error}{advice}") from error
    if path.suffix == ".tsv":
        lines = [line.partition("\t")[0] for line in lines]
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise ClbenchError(f"no texts in {path}: expected one per line")
    return texts


def text_file(source: str, root: Path) -> Path:
    """Where the texts of a source lie."""
    named = source == CONCEPTUAL_CAPTIONS
    return root / CAPTIONS_FILE if named else Path(source).expanduser()


def texts_title(source: str, root: Path) -> str:
    """What the texts of a file are called: Conceptual Captions by the file's name."""
    known = text_file(source, root).name.startswith("Validation_GCC")
    return "Conceptual Captions" if known else source


def caption(class_name: str) -> str:
    """The caption of a class, as GNSP's release writes it.

    >>> caption("n01440764"), caption("acoustic_guitar")
    ('a photo of a tench', 'a photo of an acoustic guitar')
    """
    words = words_of(class_name)
    article = "an" if words[:1].lower() in set("aeiou") else "a"
    return f"a photo of {article} {words}"


def words_of(class_name: str) -> str:
    """What a folder's name says: the first word for a WordNet id, else spaces for underscores."""
    if re.fullmatch(r"n\d{8}", class_name):
        try:
            described: str = _wordnet().label_name_to_description(class_name)
        except KeyError:
            raise ClbenchError(
                f"{class_name!r} looks like a WordNet id, but ImageNet has none like it: name the "
                "folder by its class"
            ) from None
        return described.split(",")[0]
    return class_name.replace("_", " ")


def read_image(path: Path, size: int) -> Tensor:
    """One image as ``(3, size, size)`` uint8.

    Raises:
        ClbenchError: it cannot be read.
    """
    try:
        image = decode(path, path.read_bytes())
    except OSError as error:
        raise ClbenchError(f"cannot read the image {path}: {error.strerror or error}") from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    array = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@cache
def _wordnet() -> ImageNetInfo:
    from timm.data.imagenet_info import ImageNetInfo  # takes a second

    return ImageNetInfo()


def _imagenet_ids() -> set[str]:
    """The WordNet ids of the 1000 classes of ILSVRC 2012."""
    return set(_wordnet().label_names())


def _missing(source: str, path: Path) -> str:
    if source not in IMAGE_FOLDERS:
        return (
            f"method.reference: {source!r} is neither 'task', 'benchmark', "
            f"{', '.join(map(repr, IMAGE_FOLDERS))} nor a folder"
        )
    layout = "<WordNet id>/*.JPEG" if source == IMAGENET else "*.jpg"
    return (
        f"method.reference={source}: there is no folder {path} (expected {layout} in it): put or "
        f"link the images there{_without(source, 'reference')}"
    )


def _without(source: str, key: str) -> str:
    """What to do without the data of a paper."""
    return (
        f". Without them, set method.{key} to 'task' (data of the current task) or to "
        f"{'a folder of images' if key == 'reference' else 'a text file'} of your own: tables show "
        f"what was used, and the paper's numbers, made with {source}, are not held against the run"
    )
