"""The embedded benchmark: eleven small tasks, rendered from seeds, offline.

Version 1 is frozen: a change of the renderer, the splits, the prompts or the backbone that can
change a number raises `VERSION`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from clbench.core.data import ReferencePairs
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import user_cache
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.mini.cache import Arrays, cached
from clbench.datamodules.mini.domains import DOMAINS, TASKS, domain_part
from clbench.datamodules.mini.filters import CORRUPTED, INVERTED, Filter
from clbench.datamodules.mini.render import reference_pairs, render_split
from clbench.datamodules.pixels.data_folder import Cache, data_cache, data_folder
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.pixels.samples import thinned
from clbench.datamodules.reference import draw
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.splits import few_shot_indices, listed_order

VERSION = 1
TRAIN_SIZE = 512
TEST_SIZE = 400
QUICK_TRAIN_SIZE = 128
QUICK_TEST_SIZE = 32
QUICK_REFERENCE = 128
REFERENCE_POOL = 2000
IMAGE_SIZE = 32

Rendering = Literal["official", "validation"]
Shift = Literal["none", "inverted", "corrupted", "random-labels"]
Sets = tuple[ImageTensors, ImageTensors]


def tasks(  # noqa: PLR0913 - the signature is the schema
    *,
    shots: int | None = None,
    shot_seed: int = 0,
    order: str | list[str] = "alphabetical",
    rendering: Rendering = "official",
    shift: Shift = "none",
    name: str = "mini",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = IMAGE_SIZE,
) -> TaskSequence:
    """Eleven tasks, in alphabetical order from arrows to textures.

    Args:
        shots: training images per class; None means the full 512 images per task.
        shot_seed: which images are drawn; independent of the training seed.
        order: ``alphabetical``, ``random-N`` with the number of a random order, or a list of tasks;
            ``latin-2of3`` is a part of a task: every third class, from the second on.
        rendering: ``official``, or ``validation``: other images of the same tasks, on which
            hyper-parameters are tuned.
        shift: what all tasks have that pretraining had not: ``inverted`` colours, ``corrupted``
            images (blur and noise), both in training and test; or ``random-labels``, labels of the
            training images dealt out at random, while those of test images stay true.
        name: name of the variant.
        data_root: folder of the image cache; the user's cache folder if None.
        cache_root: folder of the image cache in place of `data_root`.
        workers: ignored, the images are in memory.
        quick: train on 128 images per task at most, test on 32, draw 128 reference pairs at most.
        image_size: side the backbone expects; must be 32.

    Raises:
        ClbenchError: another image size, an order that does not exist, or too few images for
            `shots`.
    """
    require_size(image_size)
    root = cache_folder(data_root, cache_root)
    names, order_name = task_order(order)
    parts = [domain_part(task) for task in names]
    specs = tuple(
        Task(task, _texts([(d, i) for i in classes]))
        for task, (d, classes) in zip(names, parts, strict=True)
    )
    benchmark = Benchmark(name, VERSION, Setting.TASK_GIVEN, order_name, specs)

    def load(task: int) -> Sets:
        domain, classes = parts[task]
        train, test = _domain_sets(domain, rendering, root)
        if (change := _FILTERS.get(shift)) is not None:
            train = _filtered(train, change, domain, rendering, "train")
            test = _filtered(test, change, domain, rendering, "test")
        train, test = _only(train, classes), _only(test, classes)
        if shots is not None:
            train = train.subset(few_shot_indices(train.labels, shots, shot_seed, names[task]))
        if shift == "random-labels":
            train = _dealt(train, names[task], rendering, shift)
        return quick_sets(train, test) if quick else (train, test)

    return TaskSequence(
        benchmark,
        load,
        reference=reference_draw(rendering, root, quick),
        image_size=image_size,
        data_root=data_folder(data_root),
        cache=Cache(root),
    )


def task_order(order: str | list[str]) -> tuple[tuple[str, ...], str]:
    """The tasks in their order, and the name of that order.

    >>> task_order(["digits", "arrows"])
    (('digits', 'arrows'), 'digits, arrows')
    >>> task_order("random-3")[1]
    'random-3'

    Raises:
        ClbenchError: an order or task that does not exist, or a list that is empty or names one
            twice.
    """
    if isinstance(order, list):
        return listed_order(order, [*TASKS, *filter(_is_task, order)], "task")
    if match := re.fullmatch(r"random-(\d{1,9})", order):
        shuffled = np.random.default_rng(int(match[1])).permutation(len(TASKS))
        return tuple(TASKS[i] for i in shuffled), order
    if order != "alphabetical":
        raise unknown_name("benchmark.order", order, ["alphabetical", "random-N", "a list"])
    return TASKS, order


def class_steps(  # noqa: PLR0913 - the signature is the schema
    *,
    steps: int = 10,
    class_seed: int = 0,
    rendering: Rendering = "official",
    name: str = "mini-cil-10step",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = IMAGE_SIZE,
) -> TaskSequence:
    """The classes of five domains, pooled, shuffled and learned in equal steps.

    After each step the test images of all classes seen so far are scored among all names seen
    so far.

    Args:
        steps: number of steps; divides the number of classes.
        class_seed: seed of the class order.
        rendering: ``official``, or ``validation``: other images of the same classes.
        name: name of the variant.
        data_root: as in `tasks`.
        cache_root: as in `tasks`.
        workers: ignored, the images are in memory.
        quick: as in `tasks`, per step.
        image_size: side the backbone expects; must be 32.

    Raises:
        ClbenchError: another image size, or a number of steps that does not divide the classes.
    """
    require_size(image_size)
    root = cache_folder(data_root, cache_root)
    classes = [(d, i) for d in POOLED for i in range(len(DOMAINS[d].classes))]
    if not 0 < steps <= len(classes) or len(classes) % steps:
        raise ClbenchError(f"benchmark.steps={steps} does not divide {len(classes)} classes")
    order = np.random.default_rng(class_seed).permutation(len(classes))
    groups = [[classes[i] for i in part] for part in np.split(order, steps)]
    specs = tuple(Task(f"step{i + 1:02d}", _texts(group)) for i, group in enumerate(groups))
    benchmark = Benchmark(name, VERSION, Setting.CLASS_INCREMENTAL, f"shuffled-{class_seed}", specs)

    def load(task: int) -> Sets:
        train, test = (
            _join([_class_images(d, i, split, rendering, root) for d, i in groups[task]])
            for split in (0, 1)
        )
        return quick_sets(train, test) if quick else (train, test)

    return TaskSequence(
        benchmark,
        load,
        reference=reference_draw(rendering, root, quick),
        image_size=image_size,
        data_root=data_folder(data_root),
        cache=Cache(root),
    )


#: Domains of the class-incremental variant: 80 classes in all.
POOLED = ("digits", "greek", "latin", "symbols", "textures")


def _is_task(name: str) -> bool:
    try:
        domain_part(name)
    except KeyError:
        return False
    return True


def _only(images: ImageTensors, classes: Sequence[int]) -> ImageTensors:
    """The images of some classes, in ascending order, which are numbered anew."""
    chosen = torch.tensor(classes)
    kept = torch.isin(images.labels, chosen)
    return ImageTensors(images.images[kept], torch.searchsorted(chosen, images.labels[kept]))


def _texts(group: list[tuple[str, int]]) -> ClassTexts:
    names = tuple(DOMAINS[d].classes[i] for d, i in group)
    prompts = tuple(
        tuple(t.format(DOMAINS[d].classes[i]) for t in DOMAINS[d].templates) for d, i in group
    )
    return ClassTexts(names, prompts)


def _class_images(domain: str, label: int, split: int, rendering: str, root: Path) -> torch.Tensor:
    images = _domain_sets(domain, rendering, root)[split]
    return images.images[images.labels == label]


def _join(images: list[torch.Tensor]) -> ImageTensors:
    labels = torch.cat([torch.full((len(x),), label) for label, x in enumerate(images)])
    return ImageTensors(torch.cat(images), labels)


_FILTERS: dict[Shift, Filter] = {"inverted": INVERTED, "corrupted": CORRUPTED}


def _filtered(images: ImageTensors, change: Filter, *names: str) -> ImageTensors:
    """The images changed, with the noise of a set of these names."""
    changed = change.apply(images.images.numpy(), _generator(*names))
    return ImageTensors(torch.from_numpy(changed), images.labels)


def _dealt(images: ImageTensors, *names: str) -> ImageTensors:
    """The images with their labels in a random order, always the same for a set of these names."""
    order = torch.from_numpy(_generator(*names).permutation(len(images)))
    return ImageTensors(images.images, images.labels[order])


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([*"/".join(names).encode()])


def quick_sets(train: ImageTensors, test: ImageTensors) -> Sets:
    """Every n-th image of both sets."""
    return (
        train.subset(thinned(len(train), QUICK_TRAIN_SIZE)),
        test.subset(thinned(len(test), QUICK_TEST_SIZE)),
    )


def require_size(image_size: int) -> None:
    """Refuse a backbone that takes images of another size.

    Raises:
        ClbenchError: it does.
    """
    if image_size != IMAGE_SIZE:
        raise ClbenchError(
            f"the mini benchmark has {IMAGE_SIZE} x {IMAGE_SIZE} images but the backbone takes "
            f"{image_size} x {image_size}: leave the backbone settings at their defaults"
        )


@functools.cache
def _reference_pool(rendering: str, root: Path) -> tuple[torch.Tensor, list[str]]:
    """The held-out pairs, in the clean style of pretraining, that every draw comes from."""

    def render() -> Arrays:
        images, captions = reference_pairs(REFERENCE_POOL, rendering)
        return {"images": images, "captions": np.array(captions)}

    arrays = cached(root, VERSION, f"reference-{rendering}", ("images", "captions"), render)
    return torch.from_numpy(arrays["images"]), arrays["captions"].tolist()


def reference_draw(rendering: str, root: Path, quick: bool) -> Callable[[int, int], ReferencePairs]:
    """What draws pairs from the pool, by count and seed."""

    def draw_pairs(count: int, seed: int) -> ReferencePairs:
        images, texts = _reference_pool(rendering, root)
        count = min(count, QUICK_REFERENCE) if quick else count
        chosen = draw(len(texts), count, seed).tolist()
        captions = tuple(sorted({texts[i] for i in chosen}))
        labels = torch.tensor([captions.index(texts[i]) for i in chosen])
        return ReferencePairs(images[chosen], captions, labels, source="benchmark: mini, held out")

    return draw_pairs


def _domain_sets(domain: str, rendering: str, root: Path) -> Sets:
    """Train and test images of a domain."""

    def render() -> Arrays:
        arrays: Arrays = {}
        for split, count in (("train", TRAIN_SIZE), ("test", TEST_SIZE)):
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = render_split(
                domain, split, count, rendering
            )
        return arrays

    return cached_sets(root, VERSION, f"{domain}-{rendering}", render)


def cached_sets(root: Path, version: int, name: str, render: Callable[[], Arrays]) -> Sets:
    """Train and test images from the cache, or as a function renders them.

    Args:
        root: folder of the cache.
        version: of the benchmark.
        name: what the images are called in the cache.
        render: returns ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.
    """
    keys = [f"{split}_{part}" for split in ("train", "test") for part in ("images", "labels")]
    arrays = cached(root, version, name, keys, render)
    train_images, train_labels, test_images, test_labels = (
        torch.from_numpy(arrays[key]) for key in keys
    )
    return ImageTensors(train_images, train_labels), ImageTensors(test_images, test_labels)


def cache_folder(data_root: str | None, cache_root: str | None) -> Path:
    """Where rendered pictures are kept: as given, else the user's cache folder."""
    given = data_root or cache_root
    return data_cache(data_root, cache_root).folder if given else user_cache()
