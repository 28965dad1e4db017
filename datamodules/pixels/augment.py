"""The two ways from an image file to a square array: the test transform and the random crop."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Sampler
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F  # noqa: N812 - torchvision's own convention

from clbench.core.data import ImageSet
from clbench.core.errors import ClbenchError

CROP_SCALE = (0.9, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

#: Drawing a crop uses torch's global generator, which is not safe in several threads at once.
_DRAWING = threading.Lock()

Pixels = NDArray[np.uint8]
Position = tuple[int, int]
"""The position of a batch item in the stream of training images, and the image's index."""


class Transform(Protocol):
    """Turns an image into ``(3, S, S)`` uint8, the same way every time."""

    @property
    def size(self) -> int:
        """Side S of the result in pixels."""
        ...

    @property
    def key(self) -> str:
        """A text that identifies the pixels that the transform gives."""
        ...

    def __call__(self, image: Image.Image, index: int) -> Pixels:
        """Transform the image that stands at `index`."""
        ...


@dataclass(frozen=True)
class ResizeAndCrop:
    """CLIP's test transform: shorter side to `size` by bicubic interpolation, then the centre."""

    size: int

    @property
    def key(self) -> str:
        """See `Transform`."""
        return f"resize-centre-{self.size}"

    def __call__(self, image: Image.Image, index: int = 0) -> Pixels:
        """See `Transform`; the index is ignored."""
        resized = F.resize(image, self.size, InterpolationMode.BICUBIC)
        return _pixels(F.center_crop(resized, [self.size, self.size]))


@dataclass(frozen=True)
class RandomCrop:
    """The training crop of the published code (ZSCL): 90 to 100 % of the area, then bicubic.

    The crop depends on `stream` and the index only, not on any global random state, so it is
    the same with any number of worker processes.

    Attributes:
        size: side of the result.
        stream: numbers that, together with an index, decide a crop, such as seed and task.
    """

    size: int
    stream: tuple[int, ...] = (0,)

    @property
    def key(self) -> str:
        """See `Transform`."""
        return f"random-crop-{self.size}-{'-'.join(map(str, self.stream))}"

    def __call__(self, image: Image.Image, index: int) -> Pixels:
        """See `Transform`."""
        seed = int(np.random.SeedSequence([*self.stream, index]).generate_state(1)[0])
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            box = RandomResizedCrop.get_params(
                cast(Tensor, image), list(CROP_SCALE), list(CROP_RATIO)
            )
        size = [self.size, self.size]
        return _pixels(F.resized_crop(image, *box, size, InterpolationMode.BICUBIC))


class Originals(Protocol):
    """An image set that can give its images before any transform."""

    size: int

    def __len__(self) -> int:
        """Number of images."""
        ...

    def original(self, index: int) -> tuple[Image.Image, int]:
        """An image as it was stored, in RGB, and its label."""
        ...


class CroppedImages:
    """Training images under the random crop, read by `Position` instead of by index.

    Args:
        images: the image set; must hold its originals.
        seed: training seed.
        task: index of the task.
        name: name of the benchmark, for the error message.

    Raises:
        ClbenchError: the image set has no originals.
    """

    def __init__(self, images: ImageSet, seed: int, task: int, name: str) -> None:
        if not hasattr(images, "original"):
            raise ClbenchError(
                f"benchmark {name!r} has no images larger than the model takes, so nothing can "
                "be cropped: use --set train.augmentation=none"
            )
        self._images = cast(Originals, images)
        self._crop = RandomCrop(self._images.size, (seed, task))

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, positions: Sequence[Position]) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, S, S)`` uint8 and labels ``(B,)`` int64."""
        pixels, labels = [], []
        for position, index in positions:
            image, label = self._images.original(index)
            pixels.append(self._crop(image, position))
            labels.append(label)
        return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)


class PositionedBatches(Sampler[list[Position]]):
    """The batches of another sampler, every index with its position in the whole stream."""

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Position]]:
        start = 0
        for batch in self._batches:
            yield list(enumerate(batch, start))
            start += len(batch)


def _pixels(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
