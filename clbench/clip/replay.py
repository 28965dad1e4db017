"""Images of earlier tasks, kept to be seen again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torchvision's own convention

from clbench.clip.growing import let_grow

CROP_AREA = 0.9
CROP_RATIO = (3 / 4, 4 / 3)
"""As in the training crop of the published code (ZSCL)."""


class ReplayedImages(NamedTuple):
    """Images drawn from a memory.

    Attributes:
        images: ``(B, 3, H, W)`` uint8.
        ids: ``(B,)`` int64, their classes by global id (`ClassTexts.ids`).
    """

    images: Tensor
    ids: Tensor


class ReplayMemory(nn.Module):
    """A bounded store of training images, as uint8, filled by reservoir sampling.

    After n images were offered, each of them is in the memory with the same probability
    ``capacity / n`` (Vitter 1985), whatever the order of the tasks. All of it is in the state dict.

    Args:
        capacity: images kept at most.
    """

    images: Tensor
    ids: Tensor
    offered: Tensor
    """How many images were offered so far, ``()`` int64."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(0, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("offered", torch.zeros((), dtype=torch.int64))
        let_grow(self, "images", "ids")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, labels included."""
        return self.images.nbytes + self.ids.nbytes

    @torch.no_grad()
    def offer(self, images: Tensor, ids: Tensor, generator: torch.Generator) -> None:
        """Offer images one after the other.

        Args:
            images: ``(B, 3, H, W)`` uint8.
            ids: ``(B,)`` their classes by global id.
            generator: decides which images stay.

        Raises:
            ValueError: the images are not uint8, or there are not as many ids.
        """
        if len(images) != len(ids):
            raise ValueError(f"{len(images)} images but {len(ids)} ids")
        if images.dtype != torch.uint8:
            raise ValueError(f"a replay memory keeps uint8 images, not {images.dtype}")
        device = self.ids.device
        images, ids = images.to(device), ids.to(device)
        free = max(0, self.capacity - len(self))
        if free:
            before = self.images if len(self) else images[:0]
            self.images = torch.cat([before, images[:free]])
            self.ids = torch.cat([self.ids, ids[:free]])
            self.offered += len(ids[:free])
        for image, number in zip(images[free:], ids[free:], strict=True):
            self.offered += 1
            place = int(torch.randint(int(self.offered), (), generator=generator))
            if place < self.capacity:
                self.images[place], self.ids[place] = image, number

    def sample(
        self, count: int, generator: torch.Generator, *, augmented: bool = False
    ) -> ReplayedImages:
        """Draw images without repetition, all of them if there are fewer than `count`.

        Args:
            count: how many.
            generator: decides which, and the crops.
            augmented: whether each is cropped at random, see `random_crops`.
        """
        chosen = torch.randperm(len(self), generator=generator)[:count].to(self.ids.device)
        images = self.images[chosen]
        if augmented:
            images = random_crops(images, generator)
        return ReplayedImages(images, self.ids[chosen])


def random_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image cropped to 90 to 100 % of its area and brought back to its size, bicubic.

    Args:
        images: ``(B, 3, H, W)`` uint8.
        generator: on the CPU.
    """
    height, width = images.shape[-2:]
    crops = []
    for image in images:
        drawn = torch.rand(4, generator=generator).tolist()
        area = height * width * (CROP_AREA + (1 - CROP_AREA) * drawn[0])
        ratio = CROP_RATIO[0] * (CROP_RATIO[1] / CROP_RATIO[0]) ** drawn[1]
        h = min(height, max(1, round((area / ratio) ** 0.5)))
        w = min(width, max(1, round((area * ratio) ** 0.5)))
        top, left = int(drawn[2] * (height - h + 1)), int(drawn[3] * (width - w + 1))
        crops.append(
            F.resized_crop(
                image, top, left, h, w, [height, width], InterpolationMode.BICUBIC, antialias=True
            )
        )
    return torch.stack(crops) if crops else images
