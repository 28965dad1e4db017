"""MTIL: eleven data sets, one after the other, as ZSCL published the benchmark.

Version 1 is frozen: a change of splits, prompts, order or transform that can change a number
raises `VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from clbench.core.errors import unknown_name
from clbench.core.task import Benchmark, Setting, Task
from clbench.datamodules.catalogue.catalogue import (
    CATALOG,
    class_texts,
    coop_texts,
    data_set,
)
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.pixels.data_folder import Cache, data_cache, data_folder
from clbench.datamodules.pixels.decoded import Decoded, quick_sizes
from clbench.datamodules.pixels.samples import Contents
from clbench.datamodules.readers import read as readers
from clbench.datamodules.readers.coop import read_coop
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.splits import few_shot, listed_order, random_split

VERSION: Final = 1
COOP_ORDER: Final = ", CoOp splits"
"""What the name of an order ends with where the splits are CoOp's, so that no table mixes them."""

ORDER_II: Final = (
    "StanfordCars", "Food", "MNIST", "OxfordPet", "Flowers", "SUN397", "Aircraft", "Caltech101",
    "DTD", "EuroSAT", "CIFAR100",
)  # fmt: skip


def tasks(  # noqa: PLR0913 - the signature is the schema
    *,
    shots: Annotated[int, Field(gt=0)] | None = None,
    shot_seed: Annotated[int, Field(ge=0)] = 0,
    order: str | list[str] = "I",
    order_seed: Annotated[int, Field(ge=0)] = 0,
    setting: Literal["task-given", "task-hidden"] = "task-given",
    splits: Literal["zscl", "coop"] = "zscl",
    name: str = "mtil",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """Eleven data sets from aircraft to scenes, one task each.

    The data of all tasks are checked here, before training, except for damaged images.

    Args:
        shots: training images per class; None means the full training sets.
        shot_seed: which images are drawn; independent of the training seed.
        order: ``I`` or ``II`` as published, ``random``, or a list of data sets.
        order_seed: seed of the random order.
        setting: whether the data set is known at test, or every image is scored among the
            classes of all tasks.
        splits: ``zscl``, those of MTIL, or ``coop``: CoOp's splits and class names with the first
            template of each data set, as DIKI uses them. These are other images; no table mixes
            the two.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: train on about 256 images per task, test on 64.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: unknown order, data that are missing or changed, or too few images for
            `shots`.
    """
    names, order_name = data_set_order(order, order_seed)
    root, cache = data_folder(data_root), data_cache(data_root, cache_root)
    require(names, root, splits)
    if splits == "coop":
        contents = [read_coop(data_set(name), root) for name in names]
        order_name += COOP_ORDER
    else:
        contents = [official_splits(name, root, cache) for name in names]
    specs = tuple(
        Task(
            name,
            coop_texts(name, found.class_names)
            if splits == "coop"
            else class_texts(name, found.class_names),
        )
        for name, found in zip(names, contents, strict=True)
    )
    benchmark = Benchmark(name, VERSION, Setting(setting), order_name, specs)
    parts = Parts(contents, shots, shot_seed, splits, image_size, cache, quick)
    return parts.sequence(benchmark, root, workers)


@dataclass(frozen=True)
class Parts:
    """The images of tasks that are one data set each.

    Attributes:
        contents: of each task.
        shots: training images per class; None means all.
        shot_seed: which images are drawn.
        splits: whose splits these are; their draws are kept apart.
        image_size: side the backbone expects.
        cache: where draws and decoded images are kept.
        quick: use few images.
    """

    contents: Sequence[Contents]
    shots: int | None
    shot_seed: int
    splits: Literal["zscl", "coop"]
    image_size: int
    cache: Cache
    quick: bool

    def sequence(
        self, benchmark: Benchmark, root: Path, workers: int, notes: Sequence[str] = ()
    ) -> TaskSequence:
        """The sequence of a benchmark with as many tasks.

        Raises:
            ClbenchError: a class has too few images for `shots`.
        """
        trained = [found.train for found in self.contents]
        if self.shots is not None:
            kept = self.cache.within("splits")
            kept = kept.within("coop") if self.splits == "coop" else kept
            trained = [
                few_shot(task.name, x, task.classes.names, self.shots, self.shot_seed, kept)
                for task, x in zip(benchmark.tasks, trained, strict=True)
            ]

        def load(task: int) -> tuple[Decoded, Decoded]:
            name, (about_train, about_test) = benchmark.tasks[task].name, quick_sizes(self.quick)
            train, test = trained[task], self.contents[task].test
            size, cache = self.image_size, self.cache
            return (
                Decoded.of(train, size, cache, f"{name}-train", about=about_train),
                Decoded.of(test, size, cache, f"{name}-test", about=about_test),
            )

        hashes: dict[str, str] = {}
        for task, found in zip(benchmark.tasks, self.contents, strict=True):
            hashes |= found.list_hashes(task.name)
        return TaskSequence(
            benchmark,
            load,
            image_size=self.image_size,
            data_root=root,
            cache=self.cache,
            workers=workers,
            notes=notes,
            list_hashes=hashes,
        )


def data_set_order(order: str | list[str], seed: int) -> tuple[tuple[str, ...], str]:
    """The data sets in task order, and the name of that order.

    >>> data_set_order(["DTD", "MNIST"], 0)
    (('DTD', 'MNIST'), 'DTD, MNIST')

    Raises:
        ClbenchError: an order or data set that does not exist, or a list that is empty or names
            one twice.
    """
    if isinstance(order, list):
        return listed_order(order, CATALOG, "data set")
    if order == "random":
        shuffled = np.random.default_rng(seed).permutation(np.array(list(CATALOG)))
        return tuple(str(name) for name in shuffled), f"random-{seed}"
    orders = {"I": tuple(CATALOG), "II": ORDER_II}
    if order not in orders:
        raise unknown_name("benchmark.order", order, [*orders, "random", "a list of data sets"])
    return orders[order], order


def official_splits(name: str, root: Path, cache: Cache) -> Contents:
    """A data set with its training and test images, checked against the published counts.

    Args:
        name: data set.
        root: folder of the data sets.
        cache: where index files of random splits are kept.

    Raises:
        ClbenchError: it is damaged, has other counts, or has changed since it was split.
    """
    dataset = CATALOG[name]
    contents = readers.read(dataset, root)
    readers.check_counts(dataset, contents)
    if not dataset.random_split:
        return contents
    train, test = random_split(name, contents.train, cache.within("splits"))
    return Contents(train, test, contents.class_names)
