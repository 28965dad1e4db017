"""CIFAR-100, class-incremental: ten, five or two new classes per step.

Version 2 is frozen: a change of class order, prompts or transform that can change a number raises
`VERSION`. In version 1, class names of the published protocol had spaces for underscores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.catalogue.catalogue import class_texts
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.mtil import official_splits
from clbench.datamodules.pixels.augment import RandomCrop, ResizeAndCrop, Transform
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.pixels.decoded import QUICK_TEST, Decoded
from clbench.datamodules.pixels.decoded_file import DecodedFile
from clbench.datamodules.pixels.samples import Samples, thinned
from clbench.datamodules.sequence import TaskSequence

VERSION: Final = 2
DATA_SET: Final = "CIFAR100"
PROMPTS: Final = "CIFAR100-CIL"
TEST_CROP_SEED: Final = 42

ClassOrder = Literal["published", "shuffled"]
Protocol = Literal["clean", "published"]


def steps(  # noqa: PLR0913 - the signature is the schema
    *,
    steps: Annotated[int, Field(gt=0)] = 10,
    class_order: ClassOrder = "published",
    class_seed: Annotated[int, Field(ge=0)] = 0,
    protocol: Protocol = "clean",
    name: str = "cifar100-10step",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """The 100 classes in equal steps; after each, all classes seen so far are told apart.

    Args:
        steps: number of steps, 10, 20 or 50 as published; divides the number of classes.
        class_order: ``published`` (ZSCL's list) or ``shuffled`` by `class_seed`.
        class_seed: seed of the shuffled order.
        protocol: ``clean`` tests on whole images and writes class names with spaces; ``published``
            does as the published code: tests on training crops, drawn once for each test image,
            and leaves the underscores in nine class names ("aquarium_fish").
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: test on 64 images per step.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the data are missing or damaged, or the steps do not divide the classes.
    """
    root, cache = data_folder(data_root), data_cache(data_root, cache_root)
    require([DATA_SET], root)
    contents = official_splits(DATA_SET, root, cache)
    texts = class_texts(PROMPTS, contents.class_names, as_on_disk=protocol == "published")
    order = _class_order(class_order, class_seed, len(texts))
    if len(order) % steps:
        raise ClbenchError(f"benchmark.steps={steps} does not divide {len(order)} classes")
    groups = np.split(order, steps)
    specs = tuple(Task(f"step{i + 1:02d}", _chosen(texts, g)) for i, g in enumerate(groups))
    order_name = _order_name(class_order, class_seed, protocol)
    benchmark = Benchmark(name, VERSION, Setting.CLASS_INCREMENTAL, order_name, specs)
    test_transform: Transform = ResizeAndCrop(image_size)
    if protocol == "published":
        test_transform = RandomCrop(image_size, (TEST_CROP_SEED,))
    train_transform, keep = ResizeAndCrop(image_size), not quick
    train = DecodedFile(contents.train, train_transform, cache, f"{DATA_SET}-train", keep=keep)
    test = DecodedFile(contents.test, test_transform, cache, f"{DATA_SET}-test", keep=keep)

    def load(step: int) -> tuple[Decoded, Decoded]:
        return _step(train, groups[step]), _step(test, groups[step], thin=quick)

    return TaskSequence(
        benchmark, load, image_size=image_size, data_root=root, cache=cache, workers=workers
    )


def _chosen(texts: ClassTexts, classes: NDArray[np.int64]) -> ClassTexts:
    names = tuple(texts.names[c] for c in classes)
    return ClassTexts(names, tuple(texts.prompts[c] for c in classes))


def _step(file: DecodedFile, classes: NDArray[np.int64], *, thin: bool = False) -> Decoded:
    """The images of some classes, relabelled by the classes' places in the step."""
    indices, labels = step_indices(file.samples, classes)
    if thin:
        kept = np.asarray(thinned(len(indices), QUICK_TEST))
        indices, labels = indices[kept], labels[kept]
    return Decoded(file, indices, labels)


def step_indices(
    samples: Samples, classes: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the images of some classes, and their labels within the step."""
    places = np.full(int(samples.labels.max()) + 1, -1)
    places[np.asarray(classes)] = np.arange(len(classes))
    labels = places[samples.labels]
    indices = np.flatnonzero(labels >= 0)
    return indices, labels[indices]


def _class_order(kind: ClassOrder, seed: int, classes: int) -> NDArray[np.int64]:
    if kind == "shuffled":
        return np.random.default_rng(seed).permutation(classes)
    text = (files("clbench.datamodules.catalogue") / "prompts.json").read_text(encoding="utf-8")
    return np.asarray(json.loads(text)[PROMPTS]["class_order"], dtype=np.int64)


def _order_name(kind: ClassOrder, seed: int, protocol: Protocol) -> str:
    """Name of the class order; it tells the protocols apart, so that no table mixes them."""
    classes = "published" if kind == "published" else f"shuffled-{seed}"
    return classes if protocol == "clean" else f"{classes}, {protocol} protocol"
