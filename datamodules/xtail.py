"""X-TAIL: ten data sets in CoOp's splits, every image scored among the classes of all of them.

RAIL's benchmark (arXiv 2406.18868). Version 1 is frozen: a change of splits, names, prompts or
order that can change a number raises `VERSION`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from clbench.core.errors import unknown_name
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.catalogue.catalogue import CATALOG, coop_texts, data_set
from clbench.datamodules.catalogue.coop import SPLITS
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.mtil import Parts
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.readers.coop import read_coop
from clbench.datamodules.sequence import TaskSequence

VERSION: Final = 1
ORDERS: Final = {
    "I": tuple(name for name in CATALOG if name != "CIFAR100"),
    "II": (
        "StanfordCars", "Aircraft", "OxfordPet", "Food", "SUN397", "MNIST", "Flowers", "DTD",
        "Caltech101", "EuroSAT",
    ),
}  # fmt: skip
PLAIN: Final = "a photo of a {}."
RAIL_NAMES: Final = {"EuroSAT": "{} satellite location", "MNIST": 'number: "{}"'}
"""How RAIL's code extends the class names of two data sets."""

Prompts = Literal["rail", "coop"]


def tasks(  # noqa: PLR0913 - the signature is the schema
    *,
    shots: Annotated[int, Field(gt=0)] | None = None,
    shot_seed: Annotated[int, Field(ge=0)] = 0,
    order: Literal["I", "II"] = "I",
    prompts: Prompts = "rail",
    name: str = "xtail",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """Ten data sets from aircraft to scenes, one task each, none of them known at test.

    Args:
        shots: training images per class; None means the full training lists.
        shot_seed: which images are drawn; independent of the training seed.
        order: ``I`` or ``II`` as published.
        prompts: ``rail``, "a photo of a {}." for all classes, as in RAIL's code, or ``coop``, the
            template of each data set in CoOp's code.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: train on about 256 images per task, test on 64.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: unknown order, data or lists that are missing or damaged, or too few images
            for `shots`.
    """
    if order not in ORDERS:
        raise unknown_name("benchmark.order", order, ORDERS)
    names = ORDERS[order]
    root, cache = data_folder(data_root), data_cache(data_root, cache_root)
    require(names, root, "coop")
    contents = [read_coop(data_set(task), root) for task in names]
    specs = tuple(
        Task(task, class_texts(task, found.class_names, prompts))
        for task, found in zip(names, contents, strict=True)
    )
    order_name = order if prompts == "rail" else f"{order}, CoOp prompts"
    benchmark = Benchmark(name, VERSION, Setting.TASK_HIDDEN, order_name, specs)
    parts = Parts(contents, shots, shot_seed, "coop", image_size, cache, quick)
    return parts.sequence(benchmark, root, workers, _shared_prompts(specs))


def class_texts(name: str, class_names: Sequence[str], prompts: Prompts) -> ClassTexts:
    """Class names and prompts of a data set.

    >>> class_texts("EuroSAT", ["Forest"], "rail").prompts
    (('a photo of a Forest satellite location.',),)
    >>> class_texts("EuroSAT", ["Forest"], "coop").prompts
    (('a centered satellite photo of Forest.',),)
    """
    spaced = [text.replace("_", " ") for text in class_names]
    if prompts == "rail":
        extended = [RAIL_NAMES.get(name, "{}").format(text) for text in spaced]
        return ClassTexts.from_templates(extended, [PLAIN])
    template = SPLITS[name].template
    if template is None:
        return coop_texts(name, spaced)
    return ClassTexts.from_templates(spaced, [template])


def _shared_prompts(tasks: Sequence[Task]) -> list[str]:
    """A note on prompts that stand for classes of two data sets: images cannot tell them apart."""
    counts = Counter(prompt for task in tasks for prompt in task.classes.training_prompts)
    shared = [prompt for prompt, count in counts.items() if count > 1]
    if not shared:
        return []
    return [
        "prompts of two data sets, of which the one that comes first in the order of tasks wins "
        f"where text alone decides: {', '.join(sorted(shared))}"
    ]
