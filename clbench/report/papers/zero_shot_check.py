"""The first check of a new set-up: zero-shot accuracies beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clbench.core.results.result import RunResult
from clbench.core.task import Setting


@dataclass(frozen=True)
class Comparison:
    """One task's published and measured accuracy, in percent.

    Attributes:
        task: its name.
        published: as printed, with one decimal.
        measured: by this run.
        tolerance: largest difference, after rounding, that counts as agreement.
    """

    task: str
    published: float
    measured: float
    tolerance: float

    @property
    def difference(self) -> float:
        """Measured minus published, as printed: both with one decimal."""
        return round(round(self.measured, 1) - self.published, 1)

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


def not_comparable(result: RunResult, published: Mapping[str, Any]) -> str | None:
    """Why a run is not comparable with the published accuracies; None if it is."""
    backbone = published["backbone"]
    measured = {"model": result.backbone.model, "weights": result.backbone.weights}
    if measured != backbone:
        return (
            f"the published accuracies are those of {backbone['model']} ({backbone['weights']}), "
            f"this run used {measured['model']} ({measured['weights']})"
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
    rows = comparisons(result, published)
    table = Table("task", title="Zero-shot check, percent", title_justify="left")
    for heading in ("published", "measured", "difference", "allowed", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (f"{row.published:.1f}", f"{row.measured:.1f}", f"{row.difference:+.1f}")
        verdict = "ok" if row.agrees else "DIFFERS"
        table.add_row(row.task, *numbers, f"{row.tolerance:.1f}", verdict)
    return Group(table, Text(_verdict(rows, str(published["source"])), style="bold"))


def _verdict(rows: list[Comparison], source: str) -> str:
    differing = [row.task for row in rows if not row.agrees]
    if not differing:
        return f"zero-shot check passed: all {len(rows)} accuracies agree with {source}"
    return (
        f"zero-shot check FAILED for {', '.join(differing)}: look at the weights, the test images "
        f"and the class names of these data sets before trusting other numbers ({source})"
    )
