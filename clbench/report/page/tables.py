"""Tables as the page shows them: sortable, in blocks, with their sources to copy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clbench.report.formats.cells import Cell, Grid
from clbench.report.tables.documents import TableDocument

_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(
    r"([+-]?\d+(?:\.\d+)?)(?: ± \S+| \[[^]]+\]|–\d+)?(?: (k|M|G|min|h)?(?:B|s)?)?$"
)


@dataclass(frozen=True)
class PageCell:
    """A cell with what it is sorted by: a number, or empty for text and missing values."""

    text: str
    mark: str
    sort: str


@dataclass(frozen=True)
class PageBlock:
    """Rows under a common title, which may be empty."""

    title: str
    rows: tuple[tuple[PageCell, ...], ...]


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    Attributes:
        title: what it is called there.
        header: column titles.
        numeric: for each column, whether it is aligned to the right.
        blocks: the rows.
        mixed: whether sorting takes rows out of their blocks.
        document: notes, warnings and the texts to copy.
    """

    title: str
    header: tuple[str, ...]
    numeric: tuple[bool, ...]
    blocks: tuple[PageBlock, ...]
    mixed: bool
    document: TableDocument


_TITLES = {"summary": "Summary", "per-task": "Every task", "published": "Published and measured"}


def page_table(document: TableDocument) -> PageTable:
    """A table for the page.

    Rows that are only understood below a title get that title as a block, so that sorting cannot
    separate them.
    """
    grid = document.grid
    repeated = grid.header[0] == ""
    titles = {i: row[0].text for i, row in enumerate(grid.rows) if row[0].text}
    titles = titles if repeated else dict(grid.sections)
    first = 1 if repeated else 0
    title = _TITLES.get(document.stem, document.title)
    return PageTable(
        title=title,
        header=grid.titles[first:],
        numeric=grid.numeric[first:],
        blocks=_blocks(grid, titles, first),
        mixed=not repeated,
        document=document,
    )


def sort_value(text: str) -> float | None:
    """The number of a printed value, the first of a range; None if it is no number with a unit.

    >>> sort_value("84.6 ± 0.3"), sort_value("1.5 min"), sort_value("10.4 MB"), sort_value("+1.2")
    (84.6, 90.0, 10400000.0, 1.2)
    >>> sort_value("-0.3 [-1.2, +0.6]"), sort_value("4–9")
    (-0.3, 4.0)
    >>> sort_value("within tolerance") is None
    True
    """
    match = _NUMBER.match(text)
    return float(match[1]) * _UNITS.get(match[2] or "", 1.0) if match else None


def _blocks(grid: Grid, titles: dict[int, str], first: int) -> tuple[PageBlock, ...]:
    starts = sorted({0, *titles} | (set(grid.rules) if titles else set()))
    ends = [*starts[1:], len(grid.rows)]
    return tuple(
        PageBlock(
            titles.get(start, ""),
            tuple(tuple(map(_cell, row[first:])) for row in grid.rows[start:end]),
        )
        for start, end in zip(starts, ends, strict=True)
    )


def _cell(cell: Cell) -> PageCell:
    value = sort_value(cell.text)
    return PageCell(cell.text, cell.mark, "" if value is None else f"{value:g}")
