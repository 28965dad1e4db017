"""CIFAR-100, class-incremental: ten, five or two new classes per step.

Version 2 is frozen: a change of class order, prompts or transform that can change a number raises
`VERSION`. In version 1, class names of the published protocol had spaces for underscores.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Annotated, Final, Literal

from pydantic import Field

from clbench.datamodules.catalogue.catalogue import class_texts
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.mtil import official_splits
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.steps import (
    Protocol,
    Stepwise,
    evaluation_transform,
    groups_of,
    order_name,
    ordered_classes,
)

VERSION: Final = 2
DATA_SET: Final = "CIFAR100"
PROMPTS: Final = "CIFAR100-CIL"

ClassOrder = Literal["published", "shuffled"]


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
    order = ordered_classes(class_order, class_seed, {"published": _published_order()})
    parts = Stepwise(
        DATA_SET,
        contents,
        texts,
        groups_of(order, steps),
        evaluation_transform(image_size, crops=protocol == "published"),
        cache,
        quick,
    )
    order_title = order_name(class_order, class_seed, protocol)
    return parts.sequence(name, VERSION, order_title, root, workers)


def _published_order() -> list[int]:
    """ZSCL's list."""
    text = (files("clbench.datamodules.catalogue") / "prompts.json").read_text(encoding="utf-8")
    order: list[int] = json.loads(text)[PROMPTS]["class_order"]
    return order
