"""Numbers from papers.

``published.csv`` of the recipes holds the numbers with their sources, ``papers.yaml`` what is known
about them; its comments give the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import pandas as pd
import yaml

from clbench.core.errors import unknown_name

RECIPES = "clbench.experiments"
ROUNDING = 0.15
"""Largest difference of agreeing reports, in points after rounding to one decimal."""


@dataclass(frozen=True)
class PublishedNumber:
    """A number from a paper, from released files, or from notes on them.

    Attributes:
        method: as the source calls it, with variants in parentheses.
        paper_method: the same without remarks that only identify the report.
        benchmark: as papers call it, e.g. ``MTIL-full``.
        order: of the tasks; ``-`` where there are none.
        backbone: the pretrained model.
        metric: e.g. ``transfer``, ``average``, ``last``.
        task: data set; empty for the whole run.
        value: percent, or the unit in the metric's name.
        source: where it was found.
        trust: ``direct`` if the source itself was read.
        contested: range of the numbers in contradicting reports of the same experiment.
    """

    method: str
    paper_method: str
    benchmark: str
    order: str
    backbone: str
    metric: str
    task: str
    value: float
    source: str
    trust: Literal["direct", "second-hand"]
    contested: tuple[float, float] | None = None

    @property
    def by_batch(self) -> bool:
        """Whether the code behind the number decided the task of an image by its test batch."""
        rule = papers()["decided_by_batch"]
        return _base(self) in rule["methods"] and self.benchmark in rule["benchmarks"]

    @property
    def remarks(self) -> str:
        """Why to read the number with care; empty if there is no reason."""
        remarks = [] if self.trust == "direct" else ["second-hand"]
        if self.by_batch:
            remarks.append(papers()["decided_by_batch"]["remark"])
        if self.contested:
            remarks.append("contested: {:.1f} to {:.1f}".format(*self.contested))
        return "; ".join(remarks)


@cache
def papers() -> Mapping[str, Any]:
    """The rules of ``papers.yaml``."""
    content: dict[str, Any] = yaml.safe_load(_recipe_text("papers.yaml"))
    return content


@cache
def published_numbers() -> tuple[PublishedNumber, ...]:
    """All published numbers, in the order of the file.

    >>> [n.value for n in published_numbers() if n.method == "NuSA-CL"][:3]
    [68.6, 75.1, 82.8]
    """
    with (files(RECIPES) / "published.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False).astype({"value": float})
    frame["paper_method"] = frame["method"].map(_paper_method)
    thing = ["paper_method", "benchmark", "order", "backbone", "metric", "dataset"]
    rounded = frame.assign(value=frame["value"].round(1)).groupby(thing)["value"]
    frame["low"], frame["high"] = rounded.transform("min"), rounded.transform("max")
    frame = frame.rename(columns={"dataset": "task"})
    return tuple(
        PublishedNumber(
            **{str(key): value for key, value in row.items() if key not in ("low", "high")},
            contested=(row["low"], row["high"]) if row["high"] - row["low"] > ROUNDING else None,
        )
        for row in frame.to_dict("records")
    )


def published_of(method: str) -> list[PublishedNumber]:
    """The numbers of a method, by clbench's name or that of the papers, with its variants.

    Raises:
        ClbenchError: there are no published numbers of the method.
    """
    wanted = name_in_papers(method)
    found = [n for n in published_numbers() if wanted in (plain(n.method), plain(_base(n)))]
    if not found:
        raise unknown_name("published method", method, {_base(n) for n in published_numbers()})
    return found


def deviations(method: str, benchmark: str) -> list[str]:
    """In what a run of a method's recipe differs from the published code, a sentence each.

    Args:
        method: clbench's name.
        benchmark: name of the benchmark, or of its family.
    """
    family = benchmark.partition("-")[0]
    return [
        entry["text"]
        for entry in papers()["deviations"]
        if method in entry.get("methods", [method]) and family in entry.get("benchmarks", [family])
    ]


def name_in_papers(method: str) -> str:
    """What a method of clbench is called in papers, made `plain`.

    >>> name_in_papers("nusa"), name_in_papers("moe-adapters"), name_in_papers("Zero-shot")
    ('nusacl', 'moeadapters', 'zeroshot')
    """
    return plain(papers()["methods"].get(method, method))


def plain(name: str) -> str:
    """A name in lower case without hyphens and spaces."""
    return re.sub(r"[-_ ]", "", name).lower()


def abbreviation(task: str) -> str:
    """The title of a data set's column in the papers' tables.

    >>> abbreviation("StanfordCars"), abbreviation("digits")
    ('Cars', 'digits')
    """
    return str(papers()["abbreviations"].get(task, task))


def _paper_method(name: str) -> str:
    """The name without a remark that only says who reports it.

    >>> _paper_method("NuSA-CL (release, seed 42)"), _paper_method("NuSA-CL (text encoder only)")
    ('NuSA-CL', 'NuSA-CL (text encoder only)')
    """
    base, _, remark = name.partition(" (")
    words: list[str] = papers()["report_words"]
    return base if any(word in remark for word in words) else name


def _base(number: PublishedNumber) -> str:
    return number.method.partition(" (")[0]


def _recipe_text(name: str) -> str:
    return (files(RECIPES) / name).read_text(encoding="utf-8")
