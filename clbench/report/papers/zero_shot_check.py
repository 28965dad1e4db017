"""The first check of a new set-up: the untrained model beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clbench.core.results.result import BackboneRecord, RunResult
from clbench.core.task import Setting


@dataclass(frozen=True)
class Comparison:
    """A published number and a measured one, in percent.

    Attributes:
        name: of a task, or of what a probe measures.
        published: as printed.
        measured: by this run.
        tolerance: largest difference, after rounding, that counts as agreement.
        decimals: with which it was printed.
    """

    name: str
    published: float
    measured: float
    tolerance: float
    decimals: int = 1

    @property
    def difference(self) -> float:
        """Measured minus published, both rounded as printed."""
        rounded = round(self.measured, self.decimals)
        return round(rounded - self.published, self.decimals)

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= self.tolerance


def comparisons(result: RunResult, published: Mapping[str, Any]) -> list[Comparison]:
    """Row 0 of a run beside the published accuracies, for the tasks that have both.

    Args:
        result: a run; its zero-shot row counts, whatever the method.
        published: ``results.zero_shot`` of the benchmark's recipe.
    """
    row = dict(zip(result.benchmark.tasks, result.accuracy.values[0], strict=True))
    tolerance = published["tolerance"]
    found = []
    for task, accuracy in published["accuracy"].items():
        value = row.get(task)
        if value is not None:
            allowed = tolerance.get(task, tolerance["default"])
            found.append(Comparison(task, accuracy, 100 * value, allowed))
    return found


def probe_comparisons(
    probes: Mapping[str, Mapping[str, float | None]], published: Mapping[str, Any]
) -> list[Comparison]:
    """What probes found before training beside the published numbers, where there are both.

    Args:
        probes: per probe, what it measured, as fractions.
        published: ``probes`` of ``papers.yaml``.
    """
    return [
        Comparison(f"{probe}: {name}", number, 100 * value, published["tolerance"][probe], 2)
        for probe, numbers in published["values"].items()
        for name, number in numbers.items()
        if (value := probes.get(probe, {}).get(name)) is not None
    ]


def not_comparable(result: RunResult, published: Mapping[str, Any]) -> str | None:
    """Why a run is not comparable with the published accuracies; None if it is."""
    backbone = published["backbone"]
    if not _is(result.backbone, backbone):
        return (
            f"the published accuracies are those of {backbone['model']} ({backbone['weights']}), "
            f"this run used {result.backbone.model} ({result.backbone.weights})"
        )
    if result.status == "quick":
        return "a smoke run tests few images"
    if result.benchmark.setting is not Setting.TASK_GIVEN:
        return "published with the data set known at test"
    return None


def zero_shot_check(result: RunResult, published: Mapping[str, Any]) -> RenderableType:
    """A table of published and measured accuracies with a verdict, to be printed.

    Args:
        result: a run.
        published: ``results.zero_shot`` of the benchmark's recipe: ``accuracy`` by task,
            ``tolerance`` by task with ``default``, ``backbone`` and ``source``.
    """
    if reason := not_comparable(result, published):
        return Text(f"zero-shot check: not comparable ({reason})")
    return _check("zero-shot check", "task", comparisons(result, published), published["source"])


def probe_check(
    probes: Mapping[str, Mapping[str, float | None]],
    backbone: BackboneRecord,
    published: Mapping[str, Any],
) -> RenderableType | None:
    """The same for what probes found before training.

    Args:
        probes: per probe, what it measured, as fractions; of no smoke run.
        backbone: of which model.
        published: ``probes`` of ``papers.yaml``.

    Returns:
        None where nothing was published of this model that these probes measure.
    """
    rows = probe_comparisons(probes, published) if _is(backbone, published["backbone"]) else []
    return _check("probe check", "measure", rows, published["source"]) if rows else None


def _is(backbone: BackboneRecord, published: Mapping[str, str]) -> bool:
    return {"model": backbone.model, "weights": backbone.weights} == published


def _check(title: str, what: str, rows: list[Comparison], source: str) -> RenderableType:
    table = Table(what, title=f"{title.capitalize()}, percent", title_justify="left")
    for heading in ("published", "measured", "difference", "allowed", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        digits = f".{row.decimals}f"
        numbers = (f"{row.published:{digits}}", f"{row.measured:{digits}}")
        verdict = "ok" if row.agrees else "DIFFERS"
        difference = f"{row.difference:+{digits}}"
        table.add_row(row.name, *numbers, difference, f"{row.tolerance:.1f}", verdict)
    return Group(table, Text(_verdict(title, rows, source), style="bold"))


def _verdict(title: str, rows: list[Comparison], source: str) -> str:
    differing = [row.name for row in rows if not row.agrees]
    if not differing:
        return f"{title} passed: all {len(rows)} numbers agree with {source}"
    return (
        f"{title} FAILED for {', '.join(differing)}: look at the weights, the test images and the "
        f"texts of these before trusting other numbers ({source})"
    )
