"""Laying a table out for a page of paper: size of type, wrapped columns, several tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from clbench.report.formats.cells import Cell, Grid
from clbench.report.formats.widths import SIZES, TypeSize, cell_width, text_width, wrapped

PAGE_WIDTH: Final = 345.0
PAGE_HEIGHT: Final = 598.0
"""The text of LaTeX's ``article`` at ten points on A4, in points."""
_SAFETY: Final = 0.98
_NARROWEST: Final = 58.0
"""To which columns of text are wrapped, in points."""
_HEAD_HEIGHT: Final = 40.0
"""Rules, and the air around them."""
_ROUNDING: Final = 1e-6
_SPLIT: Final = SIZES[2]


@dataclass(frozen=True)
class Style:
    """How a table is set.

    Attributes:
        size: of its type.
        rotated: whether titles of numbers stand upright.
        wraps: whether columns of text may have several lines.
        gap: between columns, in points.
    """

    size: TypeSize
    rotated: bool = False
    wraps: bool = False

    @property
    def gap(self) -> float:
        """Space between columns in points, both sides together."""
        return {10.0: 12.0, 9.0: 10.0, 8.0: 6.0}.get(self.size.points, 4.0)


STYLES: Final = (
    *(Style(size) for size in SIZES[:3]),
    *(Style(size, wraps=True) for size in SIZES[1:3]),
    *(Style(size, rotated=True, wraps=True) for size in SIZES[1:]),
)
"""From the one that is read best to the one that is narrowest."""


@dataclass(frozen=True)
class Part:
    """A table that fits a page.

    Attributes:
        grid: its columns and rows.
        style: how it is set.
        wrapped: width in points of columns that have several lines, by their index.
    """

    grid: Grid
    style: Style
    wrapped: dict[int, float]


def fitting_parts(grid: Grid) -> list[Part]:
    """The table in as few parts as fit the text of a page, each with the titles of its rows.

    Type is as large as it can be on one page, and in a longer table as the width allows. Too many
    columns are split first, then too many rows, where blocks end if possible.
    """
    return [
        Part(rows, style, widths)
        for columns, style, widths in _column_parts(_named_blocks(grid))
        for rows in _row_parts(columns, style, widths)
    ]


def _named_blocks(grid: Grid) -> Grid:
    """The table with titles of blocks above them, where these stand in a column of their own."""
    titles = {i: row[0].text for i, row in enumerate(grid.rows) if row[0].text}
    if grid.header[0] or len(titles) == len(grid.rows) or grid.sections:
        return grid
    columns = range(1, len(grid.header))
    rules = grid.rules | frozenset(titles) - {0}
    return replace(grid.part(columns), rules=rules, sections=titles)


def _column_parts(grid: Grid) -> Iterator[tuple[Grid, Style, dict[int, float]]]:
    found = [(style, _fit(grid, style)) for style in STYLES]
    if fits := [(grid, style, widths) for style, widths in found if widths is not None]:
        whole = (fit for fit in fits if len(list(_row_parts(*fit))) == 1)
        yield next(whole, fits[0])
        return
    for columns in _split(grid):
        part = grid.part(columns)
        tried = ((style, _fit(part, style)) for style in STYLES)
        style, widths = next(
            ((style, widths) for style, widths in tried if widths is not None),
            (STYLES[-1], _wrapped(part, STYLES[-1], _natural(part, STYLES[-1]))),
        )
        yield part, style, widths


def _split(grid: Grid) -> list[list[int]]:
    """Indices of the columns of each part: the first column, and evenly many of the others."""
    style = Style(_SPLIT, rotated=True, wraps=True)
    for parts in range(2, len(grid.header)):
        size, larger = divmod(len(grid.header) - 1, parts)
        counts = [size + (k < larger) for k in range(parts)]
        starts = [1 + sum(counts[:k]) for k in range(parts)]
        chosen = [[0, *range(s, s + n)] for s, n in zip(starts, counts, strict=True)]
        if all(_fit(grid.part(columns), style) is not None for columns in chosen):
            return chosen
    return [[0, j] for j in range(1, len(grid.header))] or [[0]]


def _fit(grid: Grid, style: Style) -> dict[int, float] | None:
    """Widths of the columns that must be wrapped; None if even that does not help."""
    natural = _natural(grid, style)
    widths = _wrapped(grid, style, natural)
    return widths if _excess(natural, style, widths) < _ROUNDING else None


def _wrapped(grid: Grid, style: Style, natural: Sequence[float]) -> dict[int, float]:
    """Widths of wrapped columns: the widest give way first."""
    widths: dict[int, float] = {}
    texts = [j for j, right in enumerate(grid.numeric) if not right and natural[j] > _NARROWEST]
    excess = _excess(natural, style, {})
    while style.wraps and excess > 0 and texts:
        current = {j: widths.get(j, natural[j]) for j in texts}
        widest = max(current, key=lambda j: current[j])
        if current[widest] <= _NARROWEST:
            break
        widths[widest] = max(_NARROWEST, current[widest] - min(excess, 4.0))
        excess -= current[widest] - widths[widest]
    return widths


def _excess(natural: Sequence[float], style: Style, widths: dict[int, float]) -> float:
    """How much wider a table is than the page, in points."""
    columns = [widths.get(j, width) for j, width in enumerate(natural)]
    return sum(columns) + len(columns) * style.gap - PAGE_WIDTH * _SAFETY


def _natural(grid: Grid, style: Style) -> list[float]:
    """Width of every column on single lines, in points."""
    cells = _cells(grid, style)
    heads = [text_width(title, style.size) for title in grid.header]
    turned = [
        style.rotated and right and head > cell
        for right, head, cell in zip(grid.numeric, heads, cells, strict=True)
    ]
    heads = [style.size.leading if up else head for up, head in zip(turned, heads, strict=True)]
    widths, first = list(map(max, heads, cells)), 0
    for text, count in grid.spans:
        last = first + count - 1
        below = sum(widths[first : last + 1]) + (count - 1) * style.gap
        widths[last] += max(0.0, text_width(text, style.size) - below)
        first += count
    return widths


def upright(grid: Grid, style: Style) -> frozenset[int]:
    """Columns of numbers whose titles stand upright, being wider than what is below them."""
    if not style.rotated:
        return frozenset()
    return frozenset(
        j
        for j, (title, cells) in enumerate(zip(grid.header, _cells(grid, style), strict=True))
        if grid.numeric[j] and text_width(title, style.size) > cells
    )


def _cells(grid: Grid, style: Style) -> list[float]:
    """Width of the widest cell of every column, in points."""
    columns = range(len(grid.header))
    return [max((cell_width(r[j], style.size) for r in grid.rows), default=0.0) for j in columns]


def _row_parts(grid: Grid, style: Style, widths: dict[int, float]) -> Iterator[Grid]:
    """Rows that fit a page; blocks that do not fit beside the others begin a part."""
    room = PAGE_HEIGHT - _HEAD_HEIGHT - head_height(grid, style)
    heights = [_height(row, style, widths) for row in grid.rows]
    starts = sorted({0, *grid.rules, *grid.sections})
    begin, used = 0, 0.0
    for i, height in enumerate(heights):
        height += 2 * style.size.leading * (i in grid.sections or i in grid.rules)
        following = next((s for s in starts if s > i), len(heights))
        block = sum(heights[i:following]) if i in starts else 0.0
        breaks_here = used + height > room or (used + block > room and block <= room)
        if i > begin and breaks_here:
            yield _with_rows(grid, begin, i)
            begin, used = i, 0.0
        used += height
    yield _with_rows(grid, begin, len(heights))


def head_height(grid: Grid, style: Style) -> float:
    """Height of the column titles in points, with what stands above them."""
    turned = [text_width(grid.header[j], style.size) for j in upright(grid, style)]
    return max([style.size.leading, *turned]) + style.size.leading * bool(grid.above)


def _height(row: Sequence[Cell], style: Style, widths: dict[int, float]) -> float:
    lines = [len(wrapped(row[j].text, style.size, width)) for j, width in widths.items()]
    return style.size.leading * max([1, *lines])


def _with_rows(grid: Grid, begin: int, end: int) -> Grid:
    """Some rows, below the title of their block."""
    sections = {i - begin: t for i, t in grid.sections.items() if begin <= i < end}
    before = [i for i in grid.sections if i < begin]
    if 0 not in sections and before:
        sections[0] = f"{grid.sections[max(before)]} (continued)"
    rules = frozenset(i - begin for i in grid.rules if begin < i < end)
    return replace(grid, rows=grid.rows[begin:end], rules=rules, sections=sections)
