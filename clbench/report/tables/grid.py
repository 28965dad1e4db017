"""Data frames as printed tables: which columns, how their numbers look, which are the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import BEST, SECOND, Cell, Grid
from clbench.report.papers.published import abbreviation
from clbench.report.tables.frames import (
    KINDS,
    METHOD,
    STORAGE_FREE,
    STORING,
    summary_table,
)

_TITLES = {
    "transfer": "Transfer",
    "average": "Avg",
    "last": "Last",
    "incremental": "After step",
}


@dataclass(frozen=True)
class Column:
    """How a column of `summary_table` is printed.

    Attributes:
        key: column of the data frame.
        title: heading.
        show: text of a value that is not missing.
        better: 1 if larger is better, -1 if smaller is, 0 if the column is not ranked.
    """

    key: str
    title: str
    show: Callable[[Any], str]
    better: int = 0


def percent(fraction: float, signed: bool = False) -> str:
    """A fraction in percent with one decimal, halves rounded up.

    Halves are common, because accuracies are counts over a few hundred images; rounding errors in
    the last digit do not decide their direction.

    >>> percent(0.6935), percent(0.3025 - 1e-16), percent(-0.0001), percent(0.012, signed=True)
    ('69.4', '30.3', '0.0', '+1.2')
    """
    tenths = math.floor(round(1000 * abs(fraction), 6) + 0.5)
    value = math.copysign(tenths / 10, fraction) + 0.0  # adding zero turns -0.0 into 0.0
    return f"{value:+.1f}" if signed and value else f"{value:.1f}"


def interval(low: float, high: float) -> str:
    """The ends of an interval of a difference.

    >>> interval(-0.012, 0.006)
    '[-1.2, +0.6]'
    """
    return f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"


def short_number(value: float, unit: str = "") -> str:
    """A count with a decimal prefix.

    >>> short_number(149_620_737), short_number(512), short_number(2.5e9, "B")
    ('149.6 M', '512', '2.5 GB')
    """
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def short_time(seconds: float) -> str:
    """Seconds in a readable unit.

    >>> short_time(12.34), short_time(90), short_time(5400)
    ('12.3 s', '1.5 min', '1.5 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _bytes(value: float) -> str:
    return short_number(value, "B")


def _delta(value: float) -> str:
    return percent(value, signed=True)


SUMMARY_COLUMNS = (
    Column("n", "n", str),
    Column("transfer", "Transfer", percent, better=1),
    Column("average", "Avg", percent, better=1),
    Column("last", "Last", percent, better=1),
    Column("learned", "Learned", percent, better=1),
    Column("forgetting", "Forgetting", percent, better=-1),
    Column("backward_transfer", "BWT", percent, better=1),
    Column("transfer_delta", "Δ Transfer", _delta),
    Column("last_delta", "Δ Last", _delta),
    Column("trainable", "Trainable", short_number),
    Column("stored", "Stored", _bytes),
    Column("external", "External", _bytes),
    Column("needs", "Needs", str),
    Column("reference_data", "Reference data", str),
    Column("peak_memory_bytes", "Peak memory", _bytes),
    Column("training_seconds", "Training", short_time),
)
_COLUMNS = {column.key: column for column in SUMMARY_COLUMNS}
LABEL = "method"
"""What the column with the titles of rows is called."""
CONSOLE_KEYS = (
    "n",
    "transfer",
    "average",
    "last",
    "learned",
    "forgetting",
    "trainable",
    "stored",
    "training_seconds",
)
SHARED = "‡"
"""Marks times that were measured while other runs shared the machine."""
SHARED_NOTE = (
    f"{SHARED} Times were measured, at least in part, while other runs shared the machine: compare "
    "them with each other only."
)
PRESETS: dict[str, tuple[str, ...] | None] = {
    "full": None,
    "paper": ("transfer", "average", "last", "learned", "forgetting", "stored"),
}
"""Columns of the summary by the name of their choice."""
_CLASS_INCREMENTAL_OMITS = ("transfer", "backward_transfer", "transfer_delta", "last_delta")


def summary_grid(table: pd.DataFrame, setting: Setting, keys: Sequence[str] | None = None) -> Grid:
    """Print `summary_table`: mean and spread in percent, best and second best marked.

    Columns without any value are left out. Where some methods store something and
    others do not, and the table is not sorted by a column, the two kinds are blocks with a title;
    the best are those of both.

    Args:
        table: from `clbench.report.tables.frames.summary_table`.
        setting: decides which metrics are defined.
        keys: columns to print, in this order; None prints all.
    """
    omit = _CLASS_INCREMENTAL_OMITS if setting is Setting.CLASS_INCREMENTAL else ()
    columns = [
        column
        for column in (_COLUMNS.values() if keys is None else map(_COLUMNS.__getitem__, keys))
        if column.key not in omit and any(not _missing(value) for value in table[column.key])
    ]
    ranked = (table["kind"] == METHOD).to_list()
    cells = [[Cell(str(label)) for label in table.index]]
    for column in columns:
        spread = table.get(f"{column.key}_std", pd.Series(math.nan, index=table.index))
        texts = [
            _value(column, value, std) for value, std in zip(table[column.key], spread, strict=True)
        ]
        if column.show is short_time:
            shared = table["shared"].eq(True)
            texts = [f"{t} {SHARED}" if s else t for t, s in zip(texts, shared, strict=True)]
        marks = _marks(table[column.key].to_list(), ranked, column.better)
        cells.append([Cell(text, mark) for text, mark in zip(texts, marks, strict=True)])
    numeric = (False, *(column.key not in ("needs", "reference_data") for column in columns))
    first_method = ranked.index(True) if any(ranked) else 0
    sections = _sections(ranked, table["storage_free"].to_list())
    rules = frozenset({first_method, *sections} - {0})
    header = ("Method", *(column.title for column in columns))
    return Grid(header, tuple(zip(*cells, strict=True)), numeric, rules, sections)


def has_shared_times(grid: Grid) -> bool:
    """Whether a table has times that were measured beside other runs."""
    return any(cell.text.endswith(f" {SHARED}") for row in grid.rows for cell in row)


@dataclass(frozen=True)
class View:
    """Which methods and columns tables show, and in which order.

    Attributes:
        methods: their names; None shows all.
        columns: keys of the summary's columns, in their order; None shows all.
        sort: key of the column by which methods are sorted, the best first, or `LABEL`; None
            sorts them by name, those that store nothing first.
    """

    methods: frozenset[str] | None = None
    columns: tuple[str, ...] | None = None
    sort: str | None = None

    def shown(self, results: Sequence[RunResult]) -> list[RunResult]:
        """The runs of the methods that are shown."""
        return [r for r in results if self.methods is None or r.method.name in self.methods]

    def summary(self, results: Sequence[RunResult]) -> pd.DataFrame:
        """`summary_table` of some runs in the order in which they are shown.

        References and upper bounds stay at the top, unknown values come last.
        """
        table = summary_table(results)
        if self.sort is None:
            return table
        kinds = table["kind"].map(KINDS.index)
        if self.sort == LABEL:
            values = pd.Series(table.index.str.casefold(), index=table.index)
        else:
            values = table[self.sort].replace("", math.nan)
        rising = self.sort == LABEL or _COLUMNS[self.sort].better <= 0
        order = pd.DataFrame({"kind": kinds, "value": values}).sort_values(
            ["kind", "value"], ascending=[True, rising], kind="stable"
        )
        return table.loc[order.index]


WHOLE = View()
"""Everything, in the usual order."""


def make_view(
    methods: Iterable[str] | None, columns: str | None, sort: str | None, preset: str | None
) -> View:
    """The view that a user asked for.

    Args:
        methods: their names.
        columns: with commas between, by their key or title, upper case or lower.
        sort: one of them.
        preset: one of `PRESETS`, in place of columns.

    Raises:
        ClbenchError: there is no such column or preset, or both are given.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    if preset is not None and columns is not None:
        raise ClbenchError("--preset and --columns both choose columns: give one of them")
    keys = None if preset is None else PRESETS[preset]
    if columns is not None:
        found = [_column_key(name) for name in columns.split(",") if name.strip()]
        # The titles of the rows are always the first column.
        keys = tuple(dict.fromkeys(key for key in found if key != LABEL))
        if not keys:
            raise ClbenchError(f"--columns {columns!r}: expected columns, e.g. transfer,last")
    return View(
        None if methods is None else frozenset(methods),
        keys,
        None if sort is None else _column_key(sort),
    )


def column_names() -> list[str]:
    """What `make_view` calls the columns."""
    return [LABEL, *_COLUMNS]


def _column_key(name: str) -> str:
    plain = name.strip().casefold().replace("-", "_").replace(" ", "_")
    titles = {column.title.casefold().replace(" ", "_"): key for key, column in _COLUMNS.items()}
    known = {**titles, **{key: key for key in column_names()}}
    if plain not in known:
        raise unknown_name("column", name.strip(), column_names())
    return known[plain]


def per_task_grid(table: pd.DataFrame) -> Grid:
    """Print `per_task_table`: a block per metric, best and second best of each block marked.

    Columns come in the order of training and have the papers' titles.
    """
    rows: list[tuple[Cell, ...]] = []
    rules: set[int] = set()
    for metric, block in table.groupby(level="metric", sort=False):
        rules |= {len(rows)} - {0}
        ranked = (block["kind"] == METHOD).to_list()
        columns = [[Cell(str(n)) for n in block["n"]]]
        for task in block.columns[2:]:
            values = block[task].to_list()
            marks = _marks(values, ranked, better=1)
            texts = ["" if _missing(v) else percent(v) for v in values]
            columns.append([Cell(text, mark) for text, mark in zip(texts, marks, strict=True)])
        for i, (label, *cells) in enumerate(zip(block.index, *columns, strict=True)):
            title = _TITLES[str(metric)] if i == 0 else ""
            rows.append((Cell(title), Cell(str(label[1])), *cells))
    header = ("", "Method", "n", *(abbreviation(str(t)) for t in table.columns[2:-1]), "Mean")
    return Grid(header, tuple(rows), (False, False, *[True] * (len(header) - 2)), frozenset(rules))


def matrix_grid(table: pd.DataFrame) -> Grid:
    """Print `AccuracyMatrix.to_frame` in percent; rows without any value are left out."""
    known = table[~np.isnan(table.to_numpy()).all(axis=1)]
    rows = tuple(
        (Cell(str(name)), *(Cell("" if _missing(v) else percent(v)) for v in values))
        for name, values in zip(known.index, known.to_numpy().tolist(), strict=True)
    )
    header = ("After", *map(str, table.columns))
    return Grid(header, rows, (False, *[True] * len(table.columns)))


def _sections(ranked: Sequence[bool], storage_free: Sequence[bool]) -> dict[int, str]:
    """Titles of the blocks of methods; none if all are of one kind, or the kinds are mixed."""
    kinds = [free for free, use in zip(storage_free, ranked, strict=True) if use]
    if len(set(kinds)) < 2 or kinds != sorted(kinds, reverse=True):
        return {}
    first = ranked.index(True)
    return {first: STORAGE_FREE, first + kinds.index(False): STORING}


def _value(column: Column, value: Any, std: float) -> str:
    if _missing(value):
        return ""
    text = column.show(value)
    return text if _missing(std) else f"{text} ± {percent(std)}"


def _marks(values: Sequence[float], ranked: Sequence[bool], better: int) -> list[str]:
    """Best and second best among the ranked rows, as far as the printed decimals tell."""
    printed = [
        round(100 * better * value, 1) if use and better and not _missing(value) else None
        for value, use in zip(values, ranked, strict=True)
    ]
    places = sorted({value for value in printed if value is not None}, reverse=True)
    if sum(value is not None for value in printed) < 2:
        return [""] * len(printed)
    names = dict(zip(places, (BEST, SECOND), strict=False))
    return ["" if value is None else names.get(value, "") for value in printed]


def _missing(value: Any) -> bool:
    return value == "" or bool(pd.isna(value))
