"""Reference pairs for distillation: images with captions that belong to no task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from clbench.core.data import ImageSet, ReferencePairs
from clbench.core.task import ClassTexts
from clbench.datamodules.reference_folders import ImageFolder

EVERYTHING: Final = 2**31
"""Larger than the number of pairs of any source."""


def draw(available: int, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` out of `available` items, without repetition, in random order."""
    rng = np.random.default_rng(seed)
    return rng.choice(available, size=min(count, available), replace=False)


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


def folder_pairs(source: str, count: int, seed: int, image_size: int, root: Path) -> ReferencePairs:
    """Images of a folder ``class/*.jpg`` with the caption "a photo of a {class}".

    WordNet ids become the words they stand for, underscores become spaces, and "an" stands before
    a vowel. Images are resized (shorter side, bicubic) and centre-cropped.

    Args:
        source: path of the folder, or ``imagenet`` for the one in the data folder.
        count: how many pairs are drawn.
        seed: which, and their order.
        image_size: side of the images.
        root: the data folder.

    Raises:
        ClbenchError: the folder is missing or holds no images in class folders, or an image
            cannot be read.
    """
    folder = ImageFolder(source, root)
    captions, chosen = folder.captions(), draw(len(folder.paths), count, seed)
    texts = tuple(sorted({captions[i] for i in chosen}))
    number = {text: i for i, text in enumerate(texts)}
    labels = torch.tensor([number[captions[i]] for i in chosen])
    known = folder.title != str(folder.path)
    title = folder.title if known else f"folder:{folder.path}"
    return ReferencePairs(folder.read(chosen.tolist(), image_size), texts, labels, title)


class ImagePool(Protocol):
    """Images by number, and the bytes of those that come from elsewhere than the task."""

    nbytes: int

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """``(B, 3, H, W)`` uint8."""
        ...


class SetPool:
    """The images of a task, none of which come from elsewhere.

    Args:
        images: the image set.
        chosen: which of them; all if None.
    """

    nbytes = 0

    def __init__(self, images: ImageSet, chosen: Sequence[int] | None = None) -> None:
        self._images = images
        self._chosen = range(len(images)) if chosen is None else chosen

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
    """Images of a folder, read and resized on demand.

    Args:
        folder: the folder.
        image_size: side S of the images.
    """

    def __init__(self, folder: ImageFolder, image_size: int) -> None:
        self._folder = folder
        self._size = image_size
        self.nbytes = len(self) * 3 * image_size**2

    def __len__(self) -> int:
        return len(self._folder.paths)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See `ImagePool`."""
        return self._folder.read(indices, self._size)


class Stream:
    """See `clbench.core.data.ReferenceStream`.

    Args:
        pool: the images.
        texts: the texts.
        source: where both come from.
        seed: decides the orders.
        own_texts: whether the texts are the task's.
    """

    def __init__(
        self, pool: ImagePool, texts: Sequence[str], source: str, seed: int, *, own_texts: bool
    ) -> None:
        self._pool = pool
        self.all_texts = tuple(texts)
        self._seed = seed
        self.source = source
        lengths = () if own_texts else (len(text.encode()) for text in texts)
        self.nbytes = pool.nbytes + sum(lengths)

    def images(self, step: int, count: int) -> Tensor:
        """The images of a step."""
        return self._pool.read(self._drawn(0, len(self._pool), step, count))

    def texts(self, step: int, count: int) -> tuple[str, ...]:
        """The texts of a step."""
        chosen = self._drawn(1, len(self.all_texts), step, count)
        return tuple(self.all_texts[i] for i in chosen)

    def _drawn(self, kind: int, size: int, step: int, count: int) -> list[int]:
        """The position, at a step, in an endless stream of passes in random order."""
        places = range(step * count, (step + 1) * count)
        return [int(_order(self._seed, kind, i // size, size)[i % size]) for i in places]


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, number: int, size: int) -> np.ndarray:
    """The order of one pass."""
    return np.random.default_rng([seed, kind, number]).permutation(size)
