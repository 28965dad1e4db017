"""Class-incremental sequences: the classes of one data set in groups, one group per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.pixels.augment import RandomCrop, ResizeAndCrop, Transform
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.decoded import QUICK_TEST, Decoded
from clbench.datamodules.pixels.decoded_file import DecodedFile
from clbench.datamodules.pixels.samples import Contents, Samples, thinned
from clbench.datamodules.sequence import TaskSequence

Classes = NDArray[np.int64]
Protocol = Literal["clean", "published"]
"""What the published code does that cannot be meant is done by ``published`` only."""

TEST_CROP_SEED: Final = 42


def ordered_classes(kind: str, seed: int, lists: Mapping[str, Sequence[int]]) -> Classes:
    """The classes in the order of one of some lists, or ``shuffled`` by a seed."""
    if kind == "shuffled":
        return np.random.default_rng(seed).permutation(len(next(iter(lists.values()))))
    return np.asarray(lists[kind], dtype=np.int64)


def order_name(kind: str, seed: int, protocol: Protocol) -> str:
    """Name of a class order; it tells the protocols apart, so that no table mixes them.

    >>> order_name("shuffled", 3, "clean"), order_name("rapf", 0, "published")
    ('shuffled-3', 'rapf, published protocol')
    """
    classes = f"shuffled-{seed}" if kind == "shuffled" else kind
    return classes if protocol == "clean" else f"{classes}, {protocol} protocol"


def evaluation_transform(size: int, *, crops: bool) -> Transform:
    """How test images are brought to size: whole, or by training crops, one for each image."""
    return RandomCrop(size, (TEST_CROP_SEED,)) if crops else ResizeAndCrop(size)


def groups_of(order: Classes, steps: int, base: int = 0) -> list[Classes]:
    """The classes of each step: `base` classes first, if any, then the others in equal steps.

    >>> [group.tolist() for group in groups_of(np.array([4, 0, 3, 1, 2]), steps=2, base=1)]
    [[4], [0, 3], [1, 2]]

    Raises:
        ClbenchError: the steps do not divide the classes.
    """
    rest = len(order) - base
    if rest < steps or rest % steps:
        raise ClbenchError(f"benchmark.steps={steps} does not divide {rest} classes")
    return [*([order[:base]] if base else []), *np.split(order[base:], steps)]


@dataclass(frozen=True)
class Stepwise:
    """What a class-incremental sequence is made of.

    Attributes:
        data_set: its name.
        contents: its images.
        texts: its classes, in label order.
        groups: the classes of each step.
        test_transform: how test images are brought to size.
        cache: where decoded images are kept.
        quick: test on few images per step.
    """

    data_set: str
    contents: Contents
    texts: ClassTexts
    groups: Sequence[Classes]
    test_transform: Transform
    cache: Cache
    quick: bool

    def sequence(
        self, name: str, version: int, order: str, data_root: Path, workers: int
    ) -> TaskSequence:
        """The task sequence.

        Args:
            name: of the benchmark.
            version: of the benchmark.
            order: name of the class order.
            data_root: folder of the data sets.
            workers: data-loading processes.
        """
        tasks = tuple(
            Task(f"step{i + 1:02d}", _chosen(self.texts, g)) for i, g in enumerate(self.groups)
        )
        benchmark = Benchmark(name, version, Setting.CLASS_INCREMENTAL, order, tasks)
        size, keep = self.test_transform.size, not self.quick
        train = DecodedFile(
            self.contents.train,
            ResizeAndCrop(size),
            self.cache,
            f"{self.data_set}-train",
            keep=keep,
        )
        test = DecodedFile(
            self.contents.test,
            self.test_transform,
            self.cache,
            f"{self.data_set}-test",
            keep=keep,
        )

        def load(step: int) -> tuple[Decoded, Decoded]:
            return _step(train, self.groups[step]), _step(test, self.groups[step], self.quick)

        return TaskSequence(
            benchmark,
            load,
            image_size=size,
            data_root=data_root,
            cache=self.cache,
            workers=workers,
            list_hashes=self.contents.list_hashes(self.data_set),
        )


def step_indices(
    samples: Samples, classes: Sequence[int] | Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the images of some classes, and their labels within the step."""
    places = np.full(int(samples.labels.max()) + 1, -1)
    places[np.asarray(classes)] = np.arange(len(classes))
    labels = places[samples.labels]
    indices = np.flatnonzero(labels >= 0)
    return indices, labels[indices]


def _chosen(texts: ClassTexts, classes: Classes) -> ClassTexts:
    names = tuple(texts.names[c] for c in classes)
    return ClassTexts(names, tuple(texts.prompts[c] for c in classes))


def _step(file: DecodedFile, classes: Classes, thin: bool = False) -> Decoded:
    """The images of some classes, relabelled by the classes' places in the step."""
    indices, labels = step_indices(file.samples, classes)
    if thin:
        kept = np.asarray(thinned(len(indices), QUICK_TEST))
        indices, labels = indices[kept], labels[kept]
    return Decoded(file, indices, labels)
