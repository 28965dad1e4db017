"""Reference pairs for distillation: images with captions that belong to no task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clbench.core.data import ImageSet, ReferencePairs
from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts
from clbench.datamodules.pixels.rgb import SUFFIXES, decode

EVERYTHING: Final = 2**31
"""Larger than the number of pairs of any source."""


def draw(available: int, count: int, seed: int) -> np.ndarray:
    """Sorted indices of at most `count` out of `available` items, drawn without repetition."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(available, size=min(count, available), replace=False))


def task_pairs(
    images: ImageSet,
    classes: ClassTexts,
    count: int,
    seed: int,
    chosen: Sequence[int] | None = None,
) -> ReferencePairs:
    """The `chosen` training images of a task with its training prompts as captions."""
    among = range(len(images)) if chosen is None else chosen
    drawn, labels = images.__getitems__([among[i] for i in draw(len(among), count, seed)])
    return ReferencePairs(drawn, classes.training_prompts, labels, source="task")


def folder_pairs(folder: str, count: int, seed: int, image_size: int) -> ReferencePairs:
    """Images of a folder ``class/*.jpg`` with the caption "a photo of a {class}".

    Underscores in class names become spaces, and "an" stands before a vowel. Images are
    resized (shorter side, bicubic) and centre-cropped.

    Raises:
        ClbenchError: the folder is missing or holds no images in class folders, or an image
            cannot be read.
    """
    root, paths = _images_of(folder)
    chosen = [paths[i] for i in draw(len(paths), count, seed)]
    names = sorted({p.parent.name for p in chosen})
    images = torch.stack([_read(p, image_size) for p in chosen])
    labels = torch.tensor([names.index(p.parent.name) for p in chosen])
    return ReferencePairs(images, tuple(map(_caption, names)), labels, source=f"folder:{root}")


class ImagePool(Protocol):
    """Images by number."""

    nbytes: int

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """``(B, 3, H, W)`` uint8."""
        ...


class SetPool:
    """The images of a task.

    Args:
        images: the image set.
        image_size: side S of its images.
        chosen: which of them; all if None.
    """

    def __init__(
        self, images: ImageSet, image_size: int, chosen: Sequence[int] | None = None
    ) -> None:
        self._images = images
        self._chosen = range(len(images)) if chosen is None else chosen
        self.nbytes = len(self) * 3 * image_size**2

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See `ImagePool`."""
        return self._images.__getitems__([self._chosen[i] for i in indices])[0]


class MemoryPool:
    """Images that a benchmark holds in memory."""

    def __init__(self, pairs: ReferencePairs) -> None:
        self._images = pairs.images
        self.nbytes = self._images.numel()

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See `ImagePool`."""
        return self._images[torch.tensor(indices)]


class FolderPool:
    """Images of a folder ``class/*.jpg``, read and resized on demand.

    Args:
        folder: the folder.
        image_size: side S of the images.

    Raises:
        ClbenchError: the folder is missing or holds no images in class folders.
    """

    def __init__(self, folder: str, image_size: int) -> None:
        _, self._paths = _images_of(folder)
        self._size = image_size
        self.nbytes = len(self._paths) * 3 * image_size**2

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def captions(self) -> tuple[str, ...]:
        """One caption per image, as in `folder_pairs`."""
        return tuple(_caption(path.parent.name) for path in self._paths)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See `ImagePool`."""
        return torch.stack([_read(self._paths[i], self._size) for i in indices])


class Stream:
    """See `clbench.core.data.ReferenceStream`.

    Args:
        pool: the images.
        texts: the texts.
        source: where both come from.
        seed: decides the orders.
    """

    def __init__(self, pool: ImagePool, texts: Sequence[str], source: str, seed: int) -> None:
        self._pool = pool
        self._texts = texts
        self._seed = seed
        self.source = source
        self.nbytes = pool.nbytes + sum(len(text.encode()) for text in texts)

    def images(self, step: int, count: int) -> Tensor:
        """The images of a step."""
        return self._pool.read(self._drawn(0, len(self._pool), step, count))

    def texts(self, step: int, count: int) -> tuple[str, ...]:
        """The texts of a step."""
        return tuple(self._texts[i] for i in self._drawn(1, len(self._texts), step, count))

    def _drawn(self, kind: int, size: int, step: int, count: int) -> list[int]:
        """The position, at a step, in an endless stream of passes in random order."""
        places = range(step * count, (step + 1) * count)
        return [int(_order(self._seed, kind, i // size, size)[i % size]) for i in places]


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, number: int, size: int) -> np.ndarray:
    """The order of one pass."""
    return np.random.default_rng([seed, kind, number]).permutation(size)


def read_texts(file: str) -> tuple[str, ...]:
    """The lines of a text file that are not empty.

    Raises:
        ClbenchError: it cannot be read, or has none.
    """
    path = Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClbenchError(f"cannot read the texts in {path}: {error}") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise ClbenchError(f"no texts in {path}: expected one per line")
    return texts


def _images_of(folder: str) -> tuple[Path, list[Path]]:
    """A folder and the images in its class folders, sorted."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ClbenchError(
            f"method.reference: {folder!r} is neither 'task', 'benchmark' nor a folder"
        )
    paths = sorted(p for p in root.glob("*/*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ClbenchError(f"no images in {root}: expected {root}/<class name>/<image>.jpg")
    return root, paths


def _caption(class_name: str) -> str:
    words = class_name.replace("_", " ")
    article = "an" if words[:1].lower() in set("aeiou") else "a"
    return f"a photo of {article} {words}"


def _read(path: Path, size: int) -> Tensor:
    """One image as ``(3, size, size)`` uint8."""
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
