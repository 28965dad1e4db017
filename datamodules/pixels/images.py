"""Image sets held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class ImageTensors:
    """Images and labels held as two tensors.

    Args:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)`` int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 (N, 3, H, W), got {images.dtype} {images.shape}"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images = images
        self.labels = labels.long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.labels[chosen]

    def subset(self, indices: Sequence[int]) -> ImageTensors:
        """A copy of some of the images, in the order given."""
        return ImageTensors(*self.__getitems__(indices))

    def digest(self) -> str:
        """SHA-256 over shapes, images and labels."""
        sha = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        sha.update(np.ascontiguousarray(self.images.numpy()).data)
        sha.update(np.ascontiguousarray(self.labels.numpy()).data)
        return sha.hexdigest()
