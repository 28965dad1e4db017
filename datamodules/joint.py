"""The training images of all tasks as one set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Sampler

from clbench.core.data import ImageSet
from clbench.datamodules.pixels.augment import CroppedImages, Position


class JointSampler(Sampler[list[int]]):
    """Index batches over several sets in a row, each of which fills its share of the places.

    Which set a place goes to is drawn anew every time; within a set, images come pass after pass
    in fresh random order.

    Args:
        sizes: images of each set.
        steps: of each set; its share of the places is proportional to it.
        batch_size: images per step.
        seed: decides the order.
    """

    def __init__(
        self, sizes: Sequence[int], steps: Sequence[int], batch_size: int, seed: int
    ) -> None:
        self.sizes = sizes
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return sum(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        starts = accumulate(self.sizes, initial=0)
        streams = [
            _endless(start, size, self.seed + number)
            for number, (start, size) in enumerate(zip(starts, self.sizes, strict=False))
        ]
        weights = torch.tensor(self.steps, dtype=torch.float64)
        for _ in range(len(self)):
            drawn = torch.multinomial(weights, self.batch_size, True, generator=generator)
            yield [next(streams[number]) for number in drawn.tolist()]


class JoinedImages:
    """Several image sets in a row.

    Args:
        sets: read by index, or by position and index (`CroppedImages`).
        firsts: the number of the first class of each, to which its labels are added.
    """

    def __init__(self, sets: Sequence[ImageSet | CroppedImages], firsts: Sequence[int]) -> None:
        self._sets = sets
        self._starts = [*accumulate(map(len, sets), initial=0)]
        self._firsts = [*firsts]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitems__(self, items: Sequence[int | Position]) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, S, S)`` uint8 and labels ``(B,)`` int64, in the order asked for."""
        places: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            index = item if isinstance(item, int) else item[1]
            places.setdefault(bisect_right(self._starts, index) - 1, []).append(place)
        images, labels = [], []
        for number, chosen in places.items():
            own = [_shifted(items[place], -self._starts[number]) for place in chosen]
            pixels, classes = self._sets[number].__getitems__(own)  # type: ignore[arg-type]
            images.append(pixels)
            labels.append(classes + self._firsts[number])
        order = torch.tensor([place for chosen in places.values() for place in chosen]).argsort()
        return torch.cat(images)[order], torch.cat(labels)[order]


def _shifted(item: int | Position, by: int) -> int | Position:
    return item + by if isinstance(item, int) else (item[0], item[1] + by)


def _endless(start: int, size: int, seed: int) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(size, generator=generator).tolist():
            yield start + index
