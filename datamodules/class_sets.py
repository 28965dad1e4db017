"""Class-incremental benchmarks on TinyImageNet, ImageNet-R and CUB-200.

Version 1 of each is frozen: a change of splits, class order, prompts or transform that can change a
number raises `VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from clbench.core.task import ClassTexts
from clbench.datamodules.catalogue.catalogue import data_set
from clbench.datamodules.catalogue.class_lists import class_list
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.readers.read import check_counts, read
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.steps import (
    Protocol,
    Stepwise,
    evaluation_transform,
    groups_of,
    order_name,
    ordered_classes,
)

VERSION: Final = 1

Seed = Annotated[int, Field(ge=0)]
Steps = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class _Where:
    """The context that every builder receives."""

    data_root: str | None
    cache_root: str | None
    workers: int
    quick: bool
    image_size: int


def tinyimagenet(  # noqa: PLR0913 - the signature is the schema
    *,
    steps: Steps = 10,
    class_order: Literal["published", "shuffled"] = "published",
    class_seed: Seed = 0,
    protocol: Protocol = "clean",
    name: str = "tinyimagenet-10step",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """100 of the 200 classes of Tiny ImageNet first, then the others in equal steps.

    Args:
        steps: number of steps after the first 100 classes: 5, 10 or 20 as published.
        class_order: ``published`` (MoE-Adapters' list) or ``shuffled`` by `class_seed`.
        class_seed: seed of the shuffled order.
        protocol: ``clean`` tests on whole images, ``published`` on training crops, drawn once for
            each test image, as the published code does.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: test on 64 images per step.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the data are missing or damaged, or the steps do not divide 100.
    """
    crops = protocol == "published"
    order = class_order, class_seed
    where = _Where(data_root, cache_root, workers, quick, image_size)
    return _sequence("TinyImageNet", order, protocol, steps, name, where, base=100, crops=crops)


def imagenet_r(  # noqa: PLR0913 - the signature is the schema
    *,
    steps: Steps = 10,
    class_order: Literal["rapf", "mg-clip", "shuffled"] = "rapf",
    class_seed: Seed = 0,
    protocol: Protocol = "clean",
    name: str = "imagenet-r-10step",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """The 200 classes of ImageNet-R in equal steps.

    Args:
        steps: number of steps, 10 or 20 as published.
        class_order: the list of ``rapf`` or ``mg-clip``, or ``shuffled`` by `class_seed`.
        class_seed: seed of the shuffled order.
        protocol: ``clean`` writes class names with spaces, ``published`` leaves the underscores, as
            the published code does.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: test on 64 images per step.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the data or their split are missing or damaged, or the steps do not divide
            the classes.
    """
    order = class_order, class_seed
    where = _Where(data_root, cache_root, workers, quick, image_size)
    as_on_disk = protocol == "published"
    return _sequence("ImageNet-R", order, protocol, steps, name, where, as_on_disk=as_on_disk)


def cub200(  # noqa: PLR0913 - the signature is the schema
    *,
    steps: Steps = 10,
    class_order: Literal["rapf", "shuffled"] = "rapf",
    class_seed: Seed = 0,
    protocol: Protocol = "clean",
    name: str = "cub200-10step",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """The 200 birds of CUB-200-2011 in equal steps.

    Args:
        steps: number of steps, 10 as published.
        class_order: the list of ``rapf``, or ``shuffled`` by `class_seed`.
        class_seed: seed of the shuffled order.
        protocol: as in `imagenet_r`.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: test on 64 images per step.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the data are missing or damaged, or the steps do not divide the classes.
    """
    order = class_order, class_seed
    where = _Where(data_root, cache_root, workers, quick, image_size)
    as_on_disk = protocol == "published"
    return _sequence("CUB-200", order, protocol, steps, name, where, as_on_disk=as_on_disk)


def _sequence(  # noqa: PLR0913 - what the three benchmarks differ in
    data: str,
    order: tuple[str, int],
    protocol: Protocol,
    steps: int,
    name: str,
    where: _Where,
    *,
    base: int = 0,
    crops: bool = False,
    as_on_disk: bool = False,
) -> TaskSequence:
    root, cache = data_folder(where.data_root), data_cache(where.data_root, where.cache_root)
    require([data], root)
    contents = read(data_set(data), root)
    check_counts(data_set(data), contents)
    listed = class_list(data)
    names = [n if as_on_disk else n.replace("_", " ") for n in contents.class_names]
    parts = Stepwise(
        data,
        contents,
        ClassTexts.from_templates(names, [listed.template]),
        groups_of(ordered_classes(*order, listed.orders), steps, base),
        evaluation_transform(where.image_size, crops=crops),
        cache,
        where.quick,
    )
    return parts.sequence(name, VERSION, order_name(*order, protocol), root, where.workers)
