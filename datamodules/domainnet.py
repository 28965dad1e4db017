"""DomainNet, domain-incremental: the same 345 classes in six kinds of images, one kind per task.

Version 1 is frozen: a change of splits, prompts, order or transform that can change a number raises
`VERSION`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from clbench.core.errors import unknown_name
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.catalogue.catalogue import data_set
from clbench.datamodules.fetching.inventory import require
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.pixels.decoded import Decoded, quick_sizes
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.readers.domains import DOMAINS
from clbench.datamodules.readers.read import check_counts, read
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.splits import listed_order

VERSION: Final = 1
DATA_SET: Final = "DomainNet"
TEMPLATE: Final = "a photo of a {}."


def tasks(
    *,
    order: str | list[str] = "published",
    name: str = "domainnet",
    data_root: str | None = None,
    cache_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """Six domains from clipart to sketches, one task each, all with the same classes.

    Args:
        order: ``published`` (alphabetical, as in S-Prompts' code) or a list of domains.
        name: name of the variant.
        data_root: folder of the data sets; the user's data folder if None.
        cache_root: folder of what is made of them (see `data_cache`).
        workers: data-loading processes.
        quick: train on about 256 images per task, test on 64.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: unknown domain, or data that are missing or damaged.
    """
    domains, order_name = _ordered(order)
    root, cache = data_folder(data_root), data_cache(data_root, cache_root)
    require([DATA_SET], root)
    contents = read(data_set(DATA_SET), root)
    check_counts(data_set(DATA_SET), contents)
    names = [text.replace("_", " ") for text in contents.class_names]
    classes = ClassTexts.from_templates(names, [TEMPLATE])
    benchmark = Benchmark(
        name,
        VERSION,
        Setting.DOMAIN_INCREMENTAL,
        order_name,
        tuple(Task(domain, classes) for domain in domains),
    )

    def load(task: int) -> tuple[Decoded, Decoded]:
        domain, (about_train, about_test) = domains[task], quick_sizes(quick)
        train, test = (_of(domain, part) for part in (contents.train, contents.test))
        return (
            Decoded.of(train, image_size, cache, f"{domain}-train", about=about_train),
            Decoded.of(test, image_size, cache, f"{domain}-test", about=about_test),
        )

    return TaskSequence(
        benchmark,
        load,
        image_size=image_size,
        data_root=root,
        cache=cache,
        workers=workers,
        list_hashes=contents.list_hashes(DATA_SET),
    )


def _ordered(order: str | list[str]) -> tuple[tuple[str, ...], str]:
    """The domains in task order, and the name of that order."""
    if order in ("published", [*DOMAINS]):
        return DOMAINS, "published"
    if isinstance(order, list):
        return listed_order(order, DOMAINS, "domain")
    raise unknown_name("benchmark.order", order, ["published", "a list of domains"])


def _of(domain: str, samples: Samples) -> Samples:
    """The images of one domain."""
    files = samples.files or ()
    return samples.subset(np.flatnonzero([file.startswith(f"{domain}/") for file in files]))
