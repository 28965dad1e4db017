"""Tables over several benchmarks, as in papers: task orders or numbers of steps side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clbench.core.identity import chosen_options
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import Cell, Grid
from clbench.report.tables.frames import KINDS, summary_table
from clbench.report.tables.grid import summary_grid
from clbench.report.tables.groups import ComparableGroup, file_name

KEYS = ("transfer", "average", "last")
_ORDER_OPTIONS = ("order", "order_seed")
_STEP_OPTIONS = ("steps",)
_STEPS = re.compile(r"^(.*)-(\d+)step$")


@dataclass(frozen=True)
class SideBySide:
    """Groups that differ only in the order of tasks or in the number of steps.

    Attributes:
        name: fit for a file.
        title: what they have in common, for a heading.
        columns: a short heading for each group.
        groups: in the order of the columns.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    groups: tuple[ComparableGroup, ...]

    def table(self) -> pd.DataFrame:
        """The numbers in fractions: index methods; columns (heading, metric)."""
        tables = [summary_table(group.results) for group in self.groups]
        keys = [key for key in KEYS if any(table[key].notna().any() for table in tables)]
        columns = ["n", *(name for key in keys for name in (key, f"{key}_std"))]
        parts = {h: t[columns] for h, t in zip(self.columns, tables, strict=True)}
        # As in every summary: references, upper bounds, storage-free methods, the others.
        rows = pd.concat(tables)[["kind", "storage_free"]]
        rows["kind"] = rows["kind"].map(KINDS.index)
        rows = rows.sort_values(["kind", "storage_free"], ascending=[True, False], kind="stable")
        order = rows.index.drop_duplicates()
        return pd.concat(parts, axis="columns").reindex(order)


def side_by_side(groups: Sequence[ComparableGroup]) -> list[SideBySide]:
    """Tables for groups that papers print beside each other; none if there are no such groups.

    These are the task orders of one benchmark, and class-incremental benchmarks called
    ``<name>-<k>step`` with different numbers of steps. Everything else must agree: version,
    setting, options, backbone weights and test images. Only complete runs are shown.
    """
    collected: dict[str, list[tuple[tuple[int, str], ComparableGroup]]] = {}
    for group in groups:
        result = group.results[0]
        if result.status == "complete":
            for kind in (_steps_of, _order_of):
                if (found := kind(result)) is not None:
                    key, column = found
                    collected.setdefault(key, []).append((column, group))
    tables = []
    for members in collected.values():
        headings = [column for column, _ in members]
        if len(members) > 1 and len(set(headings)) == len(members):
            tables.append(_side_by_side(sorted(members, key=lambda member: member[0])))
    return sorted(tables, key=lambda table: table.name)


def side_by_side_grid(table: SideBySide) -> Grid:
    """Print the table: best and second best of each column marked.

    The n of each group is shown, once for all groups in which methods have the same.
    """
    frame = table.table()
    seeds = pd.DataFrame(frame.xs("n", axis="columns", level=1))
    same = bool((seeds.nunique(axis="columns") == 1).all())
    above, header = [""], ["Method"]
    columns = [[Cell(str(label)) for label in frame.index]]
    if same:
        above.append("")
        header.append("n")
        columns.append([Cell(f"{n:.0f}") for n in seeds.max(axis="columns")])
    for heading, group in zip(table.columns, table.groups, strict=True):
        summary = summary_table(group.results)
        grid = summary_grid(summary, group.setting, KEYS if same else ("n", *KEYS))
        rows = dict(zip(summary.index, grid.rows, strict=True))
        for j, title in enumerate(grid.header[1:], start=1):
            above.append(heading)
            header.append(title)
            columns.append([rows[m][j] if m in rows else Cell("") for m in frame.index])
    numeric = (False, *[True] * (len(header) - 1))
    return Grid(tuple(header), tuple(zip(*columns, strict=True)), numeric, above=tuple(above))


def _side_by_side(members: Sequence[tuple[tuple[int, str], ComparableGroup]]) -> SideBySide:
    groups = tuple(group for _, group in members)
    result = groups[0].results[0]
    benchmark, backbone = result.benchmark, result.backbone
    steps = _STEPS.match(benchmark.name)
    by_steps = steps is not None and len({g.results[0].benchmark.name for g in groups}) > 1
    subject = steps[1] if steps is not None and by_steps else benchmark.name
    what = "steps" if by_steps else "orders"
    return SideBySide(
        name=file_name(f"{what}-{subject}-{backbone.model}-{backbone.fingerprint[:6]}"),
        title=f"{subject} v{benchmark.version}, {benchmark.setting}, {backbone.model} "
        f"({backbone.weights}): {', '.join(heading for (_, heading), _ in members)}",
        columns=tuple(heading for (_, heading), _ in members),
        groups=groups,
    )


def _order_of(result: RunResult) -> tuple[str, tuple[int, str]]:
    """What the orders of a benchmark have in common, and the heading of this one."""
    tests = {
        task: (count, result.data.splits.get(f"{task}/test"))
        for task, count in zip(result.benchmark.tasks, result.accuracy.counts, strict=True)
    }
    common = [_common(result, _ORDER_OPTIONS), result.benchmark.name, sorted(tests.items())]
    return _key("order", common), (0, f"Order {result.benchmark.order}")


def _steps_of(result: RunResult) -> tuple[str, tuple[int, str]] | None:
    """What numbers of steps have in common; None where the benchmark does not count steps."""
    matched = _STEPS.match(result.benchmark.name)
    if matched is None or result.benchmark.setting is not Setting.CLASS_INCREMENTAL:
        return None
    images = sum(result.accuracy.counts)
    common = [_common(result, _STEP_OPTIONS), matched[1], result.benchmark.order, images]
    return _key("steps", common), (int(matched[2]), f"{int(matched[2])} steps")


def _common(result: RunResult, without: Sequence[str]) -> list[object]:
    section = result.config.get("benchmark")
    options = section.get("options", {}) if isinstance(section, dict) else {}
    kept = {k: v for k, v in chosen_options(options).items() if k not in without}
    benchmark = result.benchmark
    return [benchmark.version, benchmark.setting.value, result.backbone.fingerprint, kept]


def _key(kind: str, common: Sequence[object]) -> str:
    return json.dumps([kind, common], sort_keys=True, default=str)
