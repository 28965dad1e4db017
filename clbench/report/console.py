"""Tables and accuracy matrices for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.report.formats.cells import BEST, SECOND, Grid
from clbench.report.papers.published import PublishedNumber, published_numbers, published_of
from clbench.report.probed.tables import probe_grid, probe_table, probes_of
from clbench.report.tables.collection import Paired
from clbench.report.tables.foreign import ForeignMatrix, foreign_tables
from clbench.report.tables.grid import (
    CONSOLE_KEYS,
    SHARED_NOTE,
    WHOLE,
    View,
    has_shared_times,
    percent,
    summary_grid,
)
from clbench.report.tables.groups import ComparableGroup, comparable_groups
from clbench.report.tables.published import (
    Deviation,
    published_grid,
    published_notes,
    published_table,
)
from clbench.report.tables.side_by_side import side_by_side, side_by_side_grid

_STYLES = {BEST: "bold green", SECOND: "underline"}
_CELL = 5
"""Columns of text for one accuracy: "100.0"."""
_LABEL = 16
"""Columns of text for the names of methods and tasks."""
_HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""From low to high: dark violet, blue, teal, green, yellow, in order of increasing lightness."""


def render_console(results: Iterable[RunResult], view: View = WHOLE) -> ConsoleReport:
    """The summary tables of runs for the terminal, one per group of comparable runs.

    Args:
        results: runs of any benchmarks.
        view: which methods and columns are shown, and in which order.

    Raises:
        ClbenchError: there are no results, or two contradict each other.
    """
    groups = comparable_groups(results)
    shown = [replace(group, results=tuple(view.shown(group.results))) for group in groups]
    return ConsoleReport([group for group in shown if group.results], view)


class ConsoleReport:
    """Summary tables that leave out costs where the terminal is narrow; print with rich."""

    def __init__(self, groups: Sequence[ComparableGroup], view: View) -> None:
        self.groups = groups
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for group in self.groups:
            yield Text(group.title, style="bold")
            for line in (group.reason, *group.notes):
                if line:
                    yield Text(line)
            summary = self.view.summary(group.results)
            keys = self.view.columns or CONSOLE_KEYS
            grid = whole = summary_grid(summary, group.setting, keys)
            for shown in range(len(keys), 0, -1):
                grid = summary_grid(summary, group.setting, keys[:shown])
                if _width(grid) <= options.max_width:
                    break
            yield to_rich(grid)
            if has_shared_times(grid):
                yield Text(SHARED_NOTE, style="dim")
            for name in probes_of(group.results):
                yield Text(f"Probe {name}", style="bold")
                yield _fitting(probe_grid(probe_table(group.results, name)), options.max_width)
            if left_out := [title for title in whole.header if title not in grid.header]:
                yield Text(
                    f"No room at {options.max_width} columns for: {', '.join(left_out)} "
                    f"({_width(whole)} columns show all)",
                    style="dim",
                )
        for table in side_by_side(self.groups):
            yield Text(f"{table.title} (different benchmarks, side by side)", style="bold")
            yield _fitting(side_by_side_grid(table), options.max_width)


def comparisons_console(comparisons: Iterable[Paired]) -> Group:
    """Comparisons of methods, to be printed."""
    parts: list[RenderableType] = []
    for comparison in comparisons:
        parts += [Text(comparison.title, style="bold"), to_rich(comparison.grid())]
        parts += [Text(line, style="dim") for line in (*comparison.notes, "")]
    return Group(*parts)


def foreign_console(results: Iterable[RunResult], foreign: Sequence[ForeignMatrix]) -> Group:
    """Matrices from elsewhere beside the runs with the same tasks, to be printed."""
    results = list(results)
    parts: list[RenderableType] = []
    for table in foreign_tables(comparable_groups(results) if results else [], foreign):
        parts += [Text(table.title, style="bold"), to_rich(table.grid)]
        parts += [Text(line, style="dim") for line in table.notes]
    return Group(*parts)


def published_console(results: Iterable[RunResult], deviation: Deviation) -> Group:
    """Published numbers of whole runs beside the measured ones, to be printed."""
    parts: list[RenderableType] = []
    for group in comparable_groups(results):
        parts.append(Text(f"Published and measured: {group.title}", style="bold"))
        table = published_table(group.results, deviation)
        whole = table[table["task"] == ""].reset_index(drop=True)
        if len(whole):
            # Complete at any width: lines are wrapped, nothing is cut.
            parts.append(to_rich(published_grid(whole)))
        notes = published_notes(whole, group.results)
        parts += [Text(line, style="dim" if len(whole) else "") for line in notes]
    return Group(*parts)


def published_list(method: str | None) -> Table:
    """Published numbers of whole runs, all or those of a method, to be printed.

    Raises:
        ClbenchError: there are no published numbers of the method.
    """
    numbers = published_numbers() if method is None else published_of(method)
    table = Table()
    for title in ("method", "benchmark", "order"):
        table.add_column(title, overflow="fold")
    for title in ("Transfer", "Avg", "Last"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("remarks", "source"):
        table.add_column(title, overflow="fold")
    lines: dict[tuple[str, ...], dict[str, PublishedNumber]] = {}
    for number in numbers:
        if number.metric in ("transfer", "average", "last") and not number.task:
            key = (number.method, number.benchmark, number.order, number.source)
            lines.setdefault(key, {})[number.metric] = number
    for (name, benchmark, order, source), found in lines.items():
        known = [found.get(metric) for metric in ("transfer", "average", "last")]
        values = ["" if number is None else f"{number.value:.1f}" for number in known]
        remarks = "; ".join(dict.fromkeys(n.remarks for n in found.values() if n.remarks))
        table.add_row(name, benchmark, order, *values, remarks, source)
    return table


def to_rich(grid: Grid) -> Table:
    """A printed table for the terminal; columns of text wrap where space is short."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, (title, right) in enumerate(zip(grid.titles, grid.numeric, strict=True)):
        table.add_column(
            Text(title),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
            min_width=_widths(grid)[i],
        )
    for i, row in enumerate(grid.rows):
        if i in grid.sections:
            table.add_row(Text(grid.sections[i], style="italic"))
        cells = [Text(cell.text or "-", style=_STYLES.get(cell.mark, "")) for cell in row]
        table.add_row(*cells, end_section=i + 1 in grid.rules)
    return table


def _fitting(grid: Grid, width: int) -> Table:
    """A table below which, on a narrow terminal, the same rows go on with the other columns."""
    table = Table.grid()
    shown, first = 1, True
    while first or shown < len(grid.header):
        columns = [0]
        while shown < len(grid.header):
            if len(columns) > 1 and _width(grid.part([*columns, shown])) > width:
                break
            columns.append(shown)
            shown += 1
        table.add_row(to_rich(grid.part(columns)))
        first = False
    return table


def _widths(grid: Grid) -> list[int]:
    """The width of each column; columns of text may wrap at `_LABEL`."""
    columns = zip(grid.titles, *([cell.text for cell in row] for row in grid.rows), strict=True)
    needed = [max(map(len, column)) for column in columns]
    return [
        width if right else min(width, _LABEL)
        for width, right in zip(needed, grid.numeric, strict=True)
    ]


def _width(grid: Grid) -> int:
    return sum(_widths(grid)) + 2 * len(grid.header)


def matrix_console(matrix: AccuracyMatrix, width: int = 100) -> Table:
    """The accuracy matrix in percent, coloured from its lowest to its highest value.

    Tasks are abbreviated; where not all fit, evenly spaced rows and columns are shown, the last
    always. Accuracies on the task just learned are bold.

    Args:
        matrix: rows without any value are left out.
        width: columns of the terminal.
    """
    labels = abbreviate(["zero-shot", *matrix.tasks], _LABEL)
    fitting = max(1, (width - max(map(len, labels)) - 1) // (_CELL + 1))
    stride = math.ceil(len(matrix.tasks) / fitting)
    shown = range(len(matrix.tasks) - 1, -1, -stride)[::-1]
    known = matrix.values[~np.isnan(matrix.values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)

    caption = f"{len(shown)} of {len(matrix.tasks)} tasks shown" if stride > 1 else None
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption=caption)
    table.add_column("after", no_wrap=True)
    for name in abbreviate([matrix.tasks[j] for j in shown], _CELL):
        table.add_column(Text(name), justify="right", no_wrap=True, min_width=_CELL)
    for t in (0, *(j + 1 for j in shown)):
        row = matrix.values[t].tolist()
        if not all(math.isnan(value) for value in row):
            heat = [_heat_cell(row[j], low, high, own=j == t - 1) for j in shown]
            table.add_row(Text(labels[t]), *heat)
    return table


def abbreviate(names: Sequence[str], width: int) -> list[str]:
    """Shorten names to a width so that they stay different.

    >>> abbreviate(["Aircraft", "DTD", "classes 0-9", "classes 10-19"], 5)
    ['Aircr', 'DTD', 'cla-9', 'cla19']
    """
    heads = [name[:width] for name in names]
    for tail in range(width):
        # Names with a common beginning keep as much of their end as tells them apart.
        short = [
            head if heads.count(head) == 1 else name[: width - tail] + name[len(name) - tail :]
            for name, head in zip(names, heads, strict=True)
        ]
        if len(set(short)) == len(short) and max(map(len, short)) <= width:
            return short
    return [str(i) for i in range(1, len(names) + 1)]


def _heat_cell(value: float, low: float, high: float, own: bool) -> Text:
    if math.isnan(value):
        return Text("")
    red, green, blue = _heat_colour((value - low) / (high - low) if high > low else 1.0)
    light = 0.3 * red + 0.6 * green + 0.1 * blue > 128
    style = Style(
        color="black" if light else "white", bgcolor=f"rgb({red},{green},{blue})", bold=own
    )
    return Text(percent(value).rjust(_CELL), style=style)


def _heat_colour(position: float) -> tuple[int, int, int]:
    """Colour at a position from 0 to 1, interpolated between neighbours in `_HEAT`."""
    scaled = position * (len(_HEAT) - 1)
    i = min(int(scaled), len(_HEAT) - 2)
    red, green, blue = (
        round(a + (b - a) * (scaled - i)) for a, b in zip(_HEAT[i], _HEAT[i + 1], strict=True)
    )
    return red, green, blue
