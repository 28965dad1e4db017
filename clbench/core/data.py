"""What passes between data and methods: batches, reference pairs, image sets, task sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from clbench.core.settings import Augmentation, TrainSettings
from clbench.core.task import Benchmark


@dataclass(frozen=True)
class Batch:
    """Training images of one task.

    Attributes:
        images: ``(B, 3, H, W)``, uint8 in [0, 255], or float and already normalised.
        labels: ``(B,)`` int64, class indices within the task.
        prompts: ``(C, L)`` int64, the tokenised training prompts of the task's classes.
        tasks: ``(C,)`` int64, the task of each class, where images of several are mixed
            (``trains-at-once`` in `clbench.core.method.Trait`); None where all are of one.
    """

    images: Tensor
    labels: Tensor
    prompts: Tensor
    tasks: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            prompts=self.prompts.to(device, non_blocking=True),
            tasks=None if self.tasks is None else self.tasks.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class ReferencePairs:
    """Images with captions that belong to no task, for distillation.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        captions: the distinct captions, K texts.
        labels: ``(N,)`` int64, which caption belongs to each image.
        source: where they come from, for the result file.
    """

    images: Tensor
    captions: tuple[str, ...]
    labels: Tensor
    source: str

    @property
    def nbytes(self) -> int:
        """Size of the pairs in bytes (images as uint8, captions as UTF-8)."""
        return self.images.numel() + sum(len(c.encode()) for c in self.captions)


class ReferenceStream(Protocol):
    """Images and texts that belong to no task and not to each other, read as they are needed.

    Both are endless: pass after pass, each in fresh random order. What a step gets depends on its
    number only, so a method that counts its steps in its state resumes where it stopped.
    """

    @property
    def source(self) -> str:
        """Where they come from, for the result file."""
        ...

    @property
    def nbytes(self) -> int:
        """Size in bytes of one pass over all images (as uint8) and texts (as UTF-8) from elsewhere.

        What belongs to the task does not count.
        """
        ...

    @property
    def all_texts(self) -> tuple[str, ...]:
        """Every text once, in the order of the source."""
        ...

    def images(self, step: int, count: int) -> Tensor:
        """The images of a step, ``(count, 3, H, W)`` uint8 on the CPU."""
        ...

    def texts(self, step: int, count: int) -> tuple[str, ...]:
        """The texts of a step."""
        ...


class LabelledImages(Protocol):
    """Labelled images that can be passed over."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def batches(
        self, batch_size: int, *, seed: int | None = None, augmented: bool = False
    ) -> Iterator[Batch]:
        """One pass over the images, on the model's device.

        Args:
            batch_size: images per batch; the last one may be smaller.
            seed: None for the fixed order, in which some data sets are sorted by class; else the
                seed of a random order.
            augmented: whether images are augmented as in training; crops are drawn with `seed`.
        """
        ...


class TaskData(LabelledImages, Protocol):
    """The training set of one task, as `begin_task` and `end_task` receive it.

    Images that were held out by `validation` are not part of it.
    """

    def validation(self, share: float, seed: int = 0) -> LabelledImages:
        """Hold a share of the training images out, for the whole task.

        To be asked for in `begin_task`; asking again with the same arguments gives the same
        images. Which they are is recorded in the result.

        Args:
            share: of the training images, between 0 and 1; at least one image is drawn.
            seed: of the draw.

        Raises:
            ClbenchError: training has begun, another split was asked for before, or nothing would
                be left to train on.
        """
        ...

    def of_task(self, index: int) -> LabelledImages:
        """The training images of any task of the sequence, for methods that need ``all-data``.

        Labels and prompts are those of that task. What is held out of the current task is left
        out here, too.

        Raises:
            ClbenchError: the method does not declare ``all-data`` among its needs.
        """
        ...

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """Image-caption pairs for distillation.

        Args:
            source: ``benchmark`` (pairs the benchmark provides), ``task`` (images of this task
                with their training prompts), ``imagenet`` (in the data folder) or the path of a
                folder ``class/*.jpg``.
            count: how many pairs; fewer are returned where the source has fewer.
            seed: which pairs are drawn, and their order.

        Raises:
            ClbenchError: the source has no pairs, or is not the task and the method does not
                declare ``reference-images`` among its needs.
        """
        ...

    def reference_stream(self, images: str, texts: str, seed: int) -> ReferenceStream:
        """Images and unpaired texts for distillation, read as they are needed.

        Args:
            images: source as in `reference_pairs`, ``conceptual-captions`` (in the data folder) or
                any folder of images, with or without folders in it.
            texts: source as in `reference_pairs`, ``conceptual-captions`` or the path of a text
                file with one text per line.
            seed: decides the orders.

        Raises:
            ClbenchError: a source has nothing, or is not the task and the method does not declare
                ``reference-images`` or ``reference-texts`` among its needs.
        """
        ...


class ImageSet(Protocol):
    """A labelled image set that is read by whole batches."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, H, W)`` uint8 and labels ``(B,)`` int64 at the indices."""
        ...

    def digest(self) -> str:
        """Hex digest that changes whenever an image, a label or their order does."""
        ...


class SequenceData(Protocol):
    """The images of a benchmark's tasks, as the engine receives them.

    Attributes:
        benchmark: the tasks.
        notes: what the user should know about the images, one line each.
    """

    benchmark: Benchmark
    notes: tuple[str, ...]

    def train_set(self, task: int) -> ImageSet:
        """Training images of a task."""
        ...

    def test_set(self, task: int) -> ImageSet:
        """Test images of a task."""
        ...

    def hash_images(self, *, quiet: bool = False) -> None:
        """Do once what the digests of the image sets need, such as reading all files.

        Raises:
            ClbenchError: an image is missing.
        """
        ...

    def prepare(self, train: TrainSettings, *, quiet: bool = False) -> None:
        """Do once, before the run, what would hold it up later, such as decoding images.

        Raises:
            ClbenchError: an image is missing or damaged.
        """
        ...

    def train_loader(
        self,
        task: int,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        augmentation: Augmentation = "none",
        start: int = 0,
        share: tuple[int, int] = (0, 1),
        chosen: Sequence[int] | None = None,
    ) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        """Exactly `steps` shuffled batches; order and crops are fixed by `seed` and the task.

        Of these, the first `start` are left out: a run goes on after them. Of each, process
        ``share[0]`` of ``share[1]`` gets its part. Only the `chosen` images are drawn from, all if
        None.
        """
        ...

    def joint_loader(
        self,
        *,
        batch_size: int,
        steps: Sequence[int],
        seed: int,
        augmentation: Augmentation = "none",
        start: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        """Batches in which the images of all tasks are mixed, as many as the `steps` add up to.

        Each task fills a share of the places that is proportional to its steps. Labels are the
        classes' ids in the benchmark. `start` and `share` as in `train_loader`.
        """
        ...

    def train_pass(
        self,
        task: int,
        *,
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation = "none",
        chosen: Sequence[int] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the `chosen` training images, in fixed order or in that of a seed."""
        ...

    def test_loader(
        self, task: int, *, batch_size: int
    ) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        """One pass over the test images in fixed order."""
        ...

    def reference_pairs(
        self,
        task: int,
        source: str,
        count: int,
        seed: int,
        chosen: Sequence[int] | None = None,
    ) -> ReferencePairs:
        """See `TaskData.reference_pairs`; the task's own images are `chosen` ones, None for all."""
        ...

    def reference_stream(
        self,
        task: int,
        images: str,
        texts: str,
        seed: int,
        chosen: Sequence[int] | None = None,
    ) -> ReferenceStream:
        """See `TaskData.reference_stream`; `chosen` as in `reference_pairs`."""
        ...

    def reference_hashes(self, images: str, texts: str, *, quiet: bool = False) -> dict[str, str]:
        """Hex digests that change whenever reference data in files do.

        Args:
            images: source as in `TaskData.reference_stream`.
            texts: likewise.
            quiet: show no progress.

        Returns:
            ``images`` and ``texts`` to a digest; without those that come from the task or the
            benchmark, which the digests of the image sets and the benchmark's version cover.

        Raises:
            ClbenchError: a source has nothing, or cannot be read.
        """
        ...
