"""Image sets of decoded images, whole or in part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clbench.datamodules.pixels.augment import ResizeAndCrop
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.decoded_file import DecodedFile
from clbench.datamodules.pixels.samples import Samples, thinned

QUICK_TRAIN = 256
"""About how many training images of a task a smoke run looks at: four batches of 64."""
QUICK_TEST = 64
"""The same of test images."""


class Decoded:
    """Labelled images of a `DecodedFile`, or some of them: an image set for the task sequence.

    Args:
        file: the images.
        indices: which of them; None means all.
        labels: ``(N,)`` labels in place of the file's own.
    """

    def __init__(
        self,
        file: DecodedFile,
        indices: NDArray[np.int64] | None = None,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        self.file = file
        self._indices = np.arange(len(file.samples)) if indices is None else indices
        own = file.samples.labels[self._indices]
        self.labels = torch.as_tensor(own if labels is None else labels, dtype=torch.int64)
        self._whole = indices is None and labels is None
        self.size = file.transform.size

    @classmethod
    def of(
        cls,
        samples: Samples,
        size: int,
        cache: Cache | None,
        name: str,
        *,
        about: int | None = None,
    ) -> Decoded:
        """The images of a `Samples` under the test transform.

        Args:
            samples: the images.
            size: side to which they are brought.
            cache: where decoded images and hashes are kept; None means nowhere.
            name: for messages and names of files.
            about: every n-th image only, about so many, and not kept: for smoke runs; None means
                all.
        """
        if about is not None:
            samples = samples.subset(thinned(len(samples), about))
        return cls(DecodedFile(samples, ResizeAndCrop(size), cache, name, keep=about is None))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, S, S)`` uint8 and labels ``(B,)`` int64."""
        chosen = np.asarray(indices, dtype=np.int64)
        pixels = self.file.read(self._indices[chosen])
        return torch.from_numpy(pixels), self.labels[torch.from_numpy(chosen)]

    def original(self, index: int) -> tuple[Image.Image, int]:
        """An image as it was stored, in RGB, and its label."""
        return self.file.original(int(self._indices[index])), int(self.labels[index])

    def subset(self, indices: Sequence[int]) -> Decoded:
        """Some of the images, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Decoded(self.file, self._indices[chosen], self.labels.numpy()[chosen])

    def digest(self) -> str:
        """Hex digest that changes whenever an image, a label, their order or the size does."""
        if self._whole:
            return self.file.digest()
        sha = hashlib.sha256(self.file.digest().encode())
        sha.update(self._indices.tobytes())
        sha.update(self.labels.numpy().tobytes())
        return sha.hexdigest()

    def prepare(self, draws: int | None = None, *, quiet: bool = False) -> None:
        """Decode the images once for all runs, if that saves time.

        Args:
            draws: how many images will be read; None for a test set, which is read many times.
                If fewer are read than there are, decoding all of them would cost more time and
                disk than it saves, and images are decoded as they are read.
            quiet: show nothing.

        Raises:
            ClbenchError: an image is missing or damaged.
        """
        if draws is None or draws >= len(self):
            self.file.build(quiet=quiet)


def quick_sizes(quick: bool) -> tuple[int, int] | tuple[None, None]:
    """About how many training and test images of a task a run looks at; None means all."""
    return (QUICK_TRAIN, QUICK_TEST) if quick else (None, None)
