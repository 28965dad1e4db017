"""Images of earlier tasks, kept to be seen again."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from clbench.clip.growing import let_grow

KNUTH = 2654435761
"""Multiplicative hashing: the odd number nearest to 2^32 / golden ratio."""
CROP_AREA = 0.9
CROP_RATIO = (3 / 4, 4 / 3)
"""As in the training crop of the published code (ZSCL)."""


class ReplayedImages(NamedTuple):
    """Images drawn from a memory.

    Attributes:
        images: ``(B, 3, H, W)`` uint8.
        ids: ``(B,)`` int64, their classes by global id (`ClassTexts.ids`).
        logits: ``(B, W)`` what was remembered of them, NaN beyond an image's own; None if nothing.
    """

    images: Tensor
    ids: Tensor
    logits: Tensor | None = None


class ReplayMemory(nn.Module):
    """A bounded store of training images, as uint8. All of it is in the state dict.

    By default it is filled by reservoir sampling: after n images were offered, each of them is in
    the memory with the same probability ``capacity / n`` (Vitter 1985), whatever the order of the
    tasks. A balanced memory holds equally many images of every class seen, give or take one, and
    all images of a class that has fewer; which images of a class these are depends on the order
    in which they are offered, so that should be random.

    Args:
        capacity: images kept at most.
        balanced: whether classes share the memory evenly.
    """

    images: Tensor
    ids: Tensor
    offered: Tensor
    """How many images were offered so far, ``()`` int64."""
    logits: Tensor | None
    """What is remembered of each image, ``(N, W)``; None before `remember`."""

    def __init__(self, capacity: int, *, balanced: bool = False) -> None:
        super().__init__()
        self.capacity = capacity
        self.balanced = balanced
        self.register_buffer("images", torch.zeros(0, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("offered", torch.zeros((), dtype=torch.int64))
        self.register_buffer("logits", None)
        let_grow(self, "images", "ids", "logits")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, labels and logits included."""
        kept = (self.images, self.ids, self.logits)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    @torch.no_grad()
    def offer(self, images: Tensor, ids: Tensor, generator: torch.Generator) -> None:
        """Offer images one after the other.

        Args:
            images: ``(B, 3, H, W)`` uint8.
            ids: ``(B,)`` their classes by global id.
            generator: decides which images stay; a balanced memory needs none of its numbers.

        Raises:
            ValueError: the images are not uint8, or there are not as many ids.
        """
        if len(images) != len(ids):
            raise ValueError(f"{len(images)} images but {len(ids)} ids")
        if images.dtype != torch.uint8:
            raise ValueError(f"a replay memory keeps uint8 images, not {images.dtype}")
        device = self.ids.device
        images, ids = images.to(device), ids.to(device)
        places = self._balanced_places(ids) if self.balanced else self._reservoir(ids, generator)
        self._extend(images, min(self.capacity, len(self) + len(ids)) - len(self))
        for image, number, place in zip(images, ids, places, strict=True):
            if place is not None:
                self.images[place], self.ids[place] = image, number
                if self.logits is not None:
                    self.logits[place] = torch.nan
        self.offered += len(ids)

    @torch.no_grad()
    def remember(self, rows: Tensor, logits: Tensor) -> None:
        """Keep logits beside images.

        Args:
            rows: ``(M,)`` which images of the memory.
            logits: ``(M, W)``; W may differ from call to call.
        """
        have = self.images.new_zeros(len(self), 0) if self.logits is None else self.logits
        width = max(have.shape[1], logits.shape[1])
        self.logits = F.pad(have.to(logits.dtype), [0, width - have.shape[1]], value=torch.nan)
        self.logits[rows] = F.pad(logits, [0, width - logits.shape[1]], value=torch.nan)

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
        logits = None if self.logits is None else self.logits[chosen]
        return ReplayedImages(images, self.ids[chosen], logits)

    def _reservoir(self, ids: Tensor, generator: torch.Generator) -> list[int | None]:
        """Where each image goes, None for those that are not kept."""
        places: list[int | None] = []
        for count in range(int(self.offered) + 1, int(self.offered) + len(ids) + 1):
            if count <= self.capacity:
                places.append(count - 1)
            else:
                place = int(torch.randint(count, (), generator=generator))
                places.append(place if place < self.capacity else None)
        return places

    def _balanced_places(self, ids: Tensor) -> list[int | None]:
        """The same: of every class the first images stay, equally many of all classes."""
        seen: Counter[int] = Counter()
        keys = []
        for i, number in enumerate([*self.ids.tolist(), *ids.tolist()]):
            # The last places that do not suffice for all classes go to some in mixed order.
            keys.append((seen[number], number * KNUTH % 2**32, i))
            seen[number] += 1
        kept = {i for *_, i in sorted(keys)[: self.capacity]}
        free = [i for i in range(len(self)) if i not in kept]
        free += range(len(self), self.capacity)
        left = iter(free)
        return [next(left) if len(self) + i in kept else None for i in range(len(ids))]

    def _extend(self, like: Tensor, count: int) -> None:
        """Make room for `count` more images."""
        if count:
            before = self.images if len(self) else like[:0]
            self.images = torch.cat([before, like.new_zeros(count, *like.shape[1:])])
            self.ids = torch.cat([self.ids, self.ids.new_zeros(count)])
            if self.logits is not None:
                self.logits = F.pad(self.logits, [0, 0, 0, count], value=torch.nan)


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
            transforms.resized_crop(
                image, top, left, h, w, [height, width], InterpolationMode.BICUBIC, antialias=True
            )
        )
    return torch.stack(crops) if crops else images
