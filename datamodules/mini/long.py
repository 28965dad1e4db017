"""A long sequence of small tasks: the domains of `mini` in ever new styles, a few classes each.

Version 1 is frozen like that of `mini`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.mini.cache import Arrays
from clbench.datamodules.mini.domains import DOMAINS, TASKS
from clbench.datamodules.mini.filters import Filter, draw_filter
from clbench.datamodules.mini.render import render_classes
from clbench.datamodules.mini.sequence import (
    IMAGE_SIZE,
    Rendering,
    Sets,
    cache_folder,
    cached_sets,
    reference_draw,
    require_size,
)
from clbench.datamodules.pixels.data_folder import Cache, data_folder
from clbench.datamodules.sequence import TaskSequence

VERSION: Final = 1
COUNT: Final = 200
"""Tasks of the whole sequence."""
CLASSES: Final = 4
"""Classes of a task."""
SIZES: Final = {"train": 64, "test": 8}
"""Images of a task: so few tests that the 201 rows of 200 tasks take minutes."""
_FIRST: Final = 100_000
"""Number of the first picture in its pool, far beyond those of `mini`."""


@dataclass(frozen=True)
class Drawn:
    """What makes a task.

    Attributes:
        domain: whose pictures it has.
        labels: numbers of its classes in the domain, rising.
        filter: the style of its pictures.
        first: number of its first picture in the pool of a split.
    """

    domain: str
    labels: tuple[int, ...]
    filter: Filter
    first: int

    @property
    def texts(self) -> ClassTexts:
        """Its classes with the training prompt of the domain."""
        domain = DOMAINS[self.domain]
        names = [domain.classes[i] for i in self.labels]
        return ClassTexts.from_templates(names, domain.templates[:1])


def draw_tasks(task_seed: int, count: int = COUNT) -> list[Drawn]:
    """The first tasks of a sequence.

    The domains take turns, each turn in another order. A task depends on the seed and on its
    number only.
    """
    drawn = []
    for number in range(count):
        turn, place = divmod(number, len(TASKS))
        order = np.random.default_rng([task_seed, 0, turn]).permutation(len(TASKS))
        domain = TASKS[order[place]]
        rng = np.random.default_rng([task_seed, 1, number])
        chosen = rng.choice(len(DOMAINS[domain].classes), size=CLASSES, replace=False)
        labels = tuple(sorted(chosen.tolist()))
        drawn.append(Drawn(domain, labels, draw_filter(rng), _FIRST + 1000 * number))
    return drawn


def tasks(
    *,
    task_seed: int = 0,
    rendering: Rendering = "official",
    name: str = "mini-long",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = IMAGE_SIZE,
) -> TaskSequence:
    """200 tasks of four classes, with 64 training and 8 test images each.

    Every task has a style of its own. Classes of one name in two tasks are two classes: their
    images differ in style, and an image is scored among the four classes of its task.

    Args:
        task_seed: decides domains, classes and styles of the tasks.
        rendering: ``official``, or ``validation``: other images of the same tasks, on which
            hyper-parameters are tuned.
        name: name of the variant.
        data_root: folder of the image cache; the user's cache folder if None.
        cache_root: folder of the image cache in place of `data_root`.
        workers: ignored, the images are in memory.
        quick: draw 128 reference pairs at most.
        image_size: side the backbone expects; must be 32.

    Raises:
        ClbenchError: another image size.
    """
    require_size(image_size)
    root = cache_folder(data_root, cache_root)
    drawn = draw_tasks(task_seed)
    specs = tuple(Task(f"{one.domain}-{t:03d}", one.texts) for t, one in enumerate(drawn, start=1))
    benchmark = Benchmark(name, VERSION, Setting.TASK_GIVEN, f"drawn-{task_seed}", specs)

    return TaskSequence(
        benchmark,
        lambda task: _sets(drawn[task], rendering, root),
        reference=reference_draw(rendering, root, quick),
        image_size=image_size,
        data_root=data_folder(data_root),
        cache=Cache(root),
    )


def _sets(drawn: Drawn, rendering: str, root: Path) -> Sets:
    """Training and test images of a task."""

    def render() -> Arrays:
        arrays: Arrays = {}
        for number, (split, size) in enumerate(SIZES.items()):
            rng = np.random.default_rng([drawn.first, number, rendering == "official"])
            labels = rng.permutation(np.arange(size) % CLASSES)
            names = [drawn.labels[label] for label in labels.tolist()]
            images = render_classes(drawn.domain, names, split, drawn.first, rendering)
            arrays[f"{split}_images"] = drawn.filter.apply(images, rng)
            arrays[f"{split}_labels"] = labels
        return arrays

    digest = hashlib.sha256(repr((drawn, SIZES)).encode()).hexdigest()[:12]
    return cached_sets(root, VERSION, f"long-{digest}-{rendering}", render)
