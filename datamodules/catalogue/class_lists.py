"""Class names, templates and class orders of class-incremental data sets beside CIFAR-100."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ClassList:
    """What papers agreed on about a data set's classes.

    Attributes:
        template: the prompt, ``{}`` is the class name.
        names: WordNet id to class name, in label order; empty where the data set names its classes.
        orders: published class orders by name, each a list of labels.
    """

    template: str
    names: dict[str, str]
    orders: dict[str, tuple[int, ...]]


@functools.cache
def _lists() -> dict[str, Any]:
    text = Path(__file__).with_name("class_lists.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def class_list(name: str) -> ClassList:
    """The list of a data set.

    >>> class_list("ImageNet-R").names["n01484850"]
    'great_white_shark'
    """
    entry = _lists()[name]
    orders = {key: tuple(order) for key, order in entry["orders"].items()}
    return ClassList(entry["template"], entry.get("names", {}), orders)
