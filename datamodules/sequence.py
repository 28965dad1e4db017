"""The task sequence as a Lightning data module: one per run, one pair of image sets per task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from clbench.core.data import ImageSet, ReferencePairs, ReferenceStream
from clbench.core.errors import ClbenchError
from clbench.core.settings import Augmentation, TrainSettings
from clbench.core.task import Benchmark
from clbench.datamodules.joint import JoinedImages, JointSampler
from clbench.datamodules.pixels.augment import CroppedImages, PositionedBatches
from clbench.datamodules.pixels.data_folder import Cache, data_folder
from clbench.datamodules.pixels.decoded import Decoded
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.reference import (
    EVERYTHING,
    FolderPool,
    ImagePool,
    MemoryPool,
    SetPool,
    Stream,
    folder_pairs,
    task_pairs,
)
from clbench.datamodules.reference_folders import (
    CONCEPTUAL_CAPTIONS,
    OWN_SOURCES,
    ImageFolder,
    read_texts,
    texts_title,
)
from clbench.datamodules.splits import validation_indices

Loader = DataLoader[tuple[Tensor, Tensor]]
ImageSets = tuple[ImageSet, ImageSet]


class StepSampler(Sampler[list[int]]):
    """Index batches for exactly `steps` steps, every epoch in a new random order.

    Batches are full: an epoch that ends inside a batch is continued by the next. A training
    set smaller than a batch gives batches of its own size.

    Args:
        size: number of images.
        batch_size: images per step.
        steps: number of batches.
        seed: decides the order.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int) -> None:
        if size < 1:
            raise ClbenchError("a task has no training images")
        self.size = size
        self.batch_size = min(batch_size, size)
        self.steps = steps
        self.seed = seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        queue: list[int] = []
        for _ in range(self.steps):
            while len(queue) < self.batch_size:
                queue += torch.randperm(self.size, generator=generator).tolist()
            yield queue[: self.batch_size]
            queue = queue[self.batch_size :]


class Remaining(Sampler[Any]):
    """The batches of another sampler after the first `start`.

    Args:
        batches: the whole stream.
        start: batches that were drawn before.
    """

    def __init__(self, batches: Sampler[Any], start: int) -> None:
        self._batches = batches
        self._start = start

    def __len__(self) -> int:
        return len(self._batches) - self._start  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return islice(self._batches, self._start, None)


class Chosen(Sampler[list[int]]):
    """The batches of a sampler over a selection, as indices of the whole image set.

    Args:
        batches: numbers within the selection.
        chosen: the index of each image of the selection.
    """

    def __init__(self, batches: Sampler[list[int]], chosen: Sequence[int]) -> None:
        self._batches = batches
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return ([self._chosen[i] for i in batch] for batch in self._batches)


class Share(Sampler[Any]):
    """One process's part of every batch: each `size`-th item from the `rank`-th on.

    Args:
        batches: the whole batches.
        rank: number of the process.
        size: how many processes there are.

    Attributes:
        batches: the whole batches.
    """

    def __init__(self, batches: Sampler[Any], rank: int, size: int) -> None:
        self.batches = batches
        self._rank = rank
        self._size = size

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return (batch[self._rank :: self._size] for batch in self.batches)


def _whole_batch(batch: Any) -> Any:
    """Identity collation: `__getitems__` returns whole batches."""
    return batch


class TaskSequence(pl.LightningDataModule):
    """The images of a benchmark's tasks, loaded task by task on first use.

    Args:
        benchmark: the tasks and their classes.
        load: returns the (train, test) image sets of a task index.
        reference: returns the benchmark's own reference pairs for (count, seed), if it has any.
        image_size: side in pixels to which reference images are brought.
        data_root: the data folder, in which ``imagenet`` and ``conceptual-captions`` lie; the
            user's if None.
        cache: where hashes of reference images are kept; None means nowhere.
        workers: data-loading processes.
        notes: what the user should know about the images, one line each.
        list_hashes: hashes of lists that decide the splits, by name, for the result.
    """

    def __init__(  # noqa: PLR0913 - all but two are optional
        self,
        benchmark: Benchmark,
        load: Callable[[int], ImageSets],
        *,
        reference: Callable[[int, int], ReferencePairs] | None = None,
        image_size: int = 224,
        data_root: Path | None = None,
        cache: Cache | None = None,
        workers: int = 0,
        notes: Sequence[str] = (),
        list_hashes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.benchmark = benchmark
        self.list_hashes = dict(list_hashes or {})
        self.notes = tuple(notes)
        self._load = load
        self._reference = reference
        self._image_size = image_size
        self._data_root = data_root or data_folder(None)
        self._cache = cache
        self._folders: dict[str, ImageFolder] = {}
        self._workers = workers
        self._sets: dict[int, ImageSets] = {}

    def narrowed(self, first: int | None = None, *, validation: bool = False) -> TaskSequence:
        """The sequence on which settings are searched.

        Args:
            first: how many tasks it has, the first of this one's; None means all.
            validation: test on a fifth of the training images, which are then not trained on, in
                place of the test images.

        Raises:
            ClbenchError: it has fewer tasks.
        """
        tasks = self.benchmark.tasks
        if first is not None and first > len(tasks):
            raise ClbenchError(
                f"first_tasks={first}: {self.benchmark.name!r} has {len(tasks)} tasks"
            )

        def load(task: int) -> ImageSets:
            train, test = self._load(task)
            if not validation:
                return train, test
            if not isinstance(train, Decoded | ImageTensors):
                raise ClbenchError("tested_on=validation: images of this kind cannot be divided")
            kept, drawn = validation_indices(train.labels)
            if not drawn:
                raise ClbenchError(
                    f"tested_on=validation: {tasks[task].name} has one training image per class"
                )
            return train.subset(kept), train.subset(drawn)

        return TaskSequence(
            replace(self.benchmark, tasks=tasks[:first]),
            load,
            reference=self._reference,
            image_size=self._image_size,
            data_root=self._data_root,
            cache=self._cache,
            workers=self._workers,
            notes=self.notes,
            list_hashes=self.list_hashes,
        )

    def train_set(self, task: int) -> ImageSet:
        """Training images of a task."""
        return self._task_sets(task)[0]

    def test_set(self, task: int) -> ImageSet:
        """Test images of a task."""
        return self._task_sets(task)[1]

    def hash_images(self, *, quiet: bool = False) -> None:
        """Take the hash of every image file that was not taken before.

        Raises:
            ClbenchError: an image is missing or cannot be read.
        """
        for index in range(len(self.benchmark)):
            for images in self._task_sets(index):
                if isinstance(images, Decoded):
                    images.file.hash_images(quiet=quiet)

    def prepare(self, train: TrainSettings, *, quiet: bool = False) -> None:
        """Decode the images of the image sets that read from disk.

        Training images are decoded in advance only if the run draws each at least once on average.

        Args:
            train: how many training images are drawn, and whether they are cropped at random.
            quiet: show no progress.

        Raises:
            ClbenchError: an image is missing or damaged.
        """
        for index, task in enumerate(self.benchmark.tasks):
            trained, tested = self._task_sets(index)
            if isinstance(tested, Decoded):
                tested.prepare(quiet=quiet)
            if isinstance(trained, Decoded) and train.augmentation == "none":
                steps = train.steps_for(task.name, len(trained))
                trained.prepare(steps * train.batch_size, quiet=quiet)

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
    ) -> Loader:
        """Exactly `steps` shuffled batches; order and crops depend on `seed` and the task only.

        Of these, the first `start` are left out. Of each, process ``share[0]`` of ``share[1]``
        gets its part. Only the `chosen` images are drawn from, all if None.

        Raises:
            ClbenchError: crops of images without originals were requested.
        """
        images = self.train_set(task)
        size = len(images) if chosen is None else len(chosen)
        sampler: Sampler[list[int]] = StepSampler(size, batch_size, steps, seed * 10_007 + task)
        if chosen is not None:
            sampler = Chosen(sampler, chosen)
        if augmentation == "crop":
            cropped = CroppedImages(images, seed, task, self.benchmark.name)
            positions = PositionedBatches(sampler)
            return self._loader(cropped, Share(Remaining(positions, start), *share))
        return self._loader(images, Share(Remaining(sampler, start), *share))

    def joint_loader(
        self,
        *,
        batch_size: int,
        steps: Sequence[int],
        seed: int,
        augmentation: Augmentation = "none",
        start: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> Loader:
        """Batches in which the images of all tasks are mixed (`SequenceData.joint_loader`).

        Raises:
            ClbenchError: crops are asked for of images that have no original.
        """
        sets: list[Any] = [self.train_set(task) for task in range(len(self.benchmark))]
        drawn: Sampler[Any] = JointSampler([*map(len, sets)], steps, batch_size, seed * 10_007)
        if augmentation == "crop":
            name = self.benchmark.name
            sets = [CroppedImages(images, seed, task, name) for task, images in enumerate(sets)]
            drawn = PositionedBatches(drawn)
        joined = JoinedImages(sets, [task.classes.ids[0] for task in self.benchmark.tasks])
        return self._loader(joined, Share(Remaining(drawn, start), *share))

    def train_pass(
        self,
        task: int,
        *,
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation = "none",
        chosen: Sequence[int] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the `chosen` training images of a task, all if None.

        In fixed order, or in the random order of a seed, which also decides the crops.

        Raises:
            ClbenchError: crops of images without originals were requested.
        """
        images = self.train_set(task)
        order = list(range(len(images)) if chosen is None else chosen)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            order = [order[i] for i in torch.randperm(len(order), generator=generator)]
        cropped = None
        if augmentation == "crop":
            cropped = CroppedImages(images, seed or 0, task, self.benchmark.name)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            if cropped is None:
                yield images.__getitems__(part)
            else:
                yield cropped.__getitems__(list(enumerate(part, start)))

    def test_loader(self, task: int, *, batch_size: int) -> Loader:
        """One pass over the test images of a task in fixed order."""
        images = self.test_set(task)
        batches = [
            list(range(start, min(start + batch_size, len(images))))
            for start in range(0, len(images), batch_size)
        ]
        return self._loader(images, batches)

    def reference_pairs(
        self,
        task: int,
        source: str,
        count: int,
        seed: int,
        chosen: Sequence[int] | None = None,
    ) -> ReferencePairs:
        """Image-caption pairs for distillation: ``benchmark``, ``task`` or a folder.

        Of the task's own images only the `chosen` ones are drawn from, all if None.

        Raises:
            ClbenchError: the benchmark has no pairs of its own, or the folder holds no images.
        """
        if source == "task":
            classes = self.benchmark.tasks[task].classes
            return task_pairs(self.train_set(task), classes, count, seed, chosen)
        if source != "benchmark":
            return folder_pairs(source, count, seed, self._image_size, self._data_root)
        if self._reference is None:
            raise ClbenchError(
                f"benchmark {self.benchmark.name!r} has no reference data of its own: set "
                "method.reference (and method.captions, if the method has it) to 'task' or to a "
                "folder of images (folder/class/*.jpg)"
            )
        return self._reference(count, seed)

    def reference_stream(
        self,
        task: int,
        images: str,
        texts: str,
        seed: int,
        chosen: Sequence[int] | None = None,
    ) -> ReferenceStream:
        """Images and unpaired texts, read as they are needed (see `TaskData.reference_stream`).

        Of the task's own images only the `chosen` ones are drawn from, all if None.

        Raises:
            ClbenchError: a source has nothing.
        """
        if images == "task":
            pool: ImagePool = SetPool(self.train_set(task), chosen)
        elif images == "benchmark":
            pairs = self.reference_pairs(task, images, EVERYTHING, seed)
            pool, images = MemoryPool(pairs), pairs.source
        else:
            folder = self._folder(images)
            pool, images = FolderPool(folder, self._image_size), folder.title
        lines, title = self._texts(task, texts)
        own = texts == "task"
        whole = images if images == title else f"{images}, texts: {title}"
        return Stream(pool, lines, whole, seed, own_texts=own)

    def reference_hashes(self, images: str, texts: str, *, quiet: bool = False) -> dict[str, str]:
        """SHA-256 of reference data that lie in files (see `SequenceData.reference_hashes`).

        That of images covers their names and what they hold; that of texts covers what is read.

        Raises:
            ClbenchError: a source has nothing, or cannot be read.
        """
        found: dict[str, str] = {}
        if images not in OWN_SOURCES:
            found["images"] = self._folder(images).digest(self._cache, quiet=quiet)
        if texts not in OWN_SOURCES:
            lines, _ = self._texts(0, texts)
            found["texts"] = hashlib.sha256(json.dumps([*lines]).encode()).hexdigest()
        return found

    def _folder(self, source: str) -> ImageFolder:
        """A folder of reference images, listed once."""
        if source not in self._folders:
            self._folders[source] = ImageFolder(source, self._data_root)
        return self._folders[source]

    def _texts(self, task: int, source: str) -> tuple[Sequence[str], str]:
        """The texts of a source, and what it is called."""
        root = self._data_root
        if source == "task":
            return self.benchmark.tasks[task].classes.training_prompts, source
        if source == "benchmark":
            pairs = self.reference_pairs(task, source, EVERYTHING, 0)
            return pairs.captions, pairs.source
        path = Path(source).expanduser()
        if source == CONCEPTUAL_CAPTIONS or path.is_file() or path.suffix in (".txt", ".tsv"):
            return read_texts(source, root), texts_title(source, root)
        folder = self._folder(source)
        return list(dict.fromkeys(folder.captions())), folder.title

    def _task_sets(self, task: int) -> ImageSets:
        if task not in self._sets:
            self._sets[task] = self._load(task)
        return self._sets[task]

    def _loader(self, images: ImageSet | CroppedImages | JoinedImages, batches: Any) -> Loader:
        return DataLoader(
            cast(Any, images),
            batch_sampler=batches,
            collate_fn=_whole_batch,
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),
        )
