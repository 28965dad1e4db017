"""Printed tables as Markdown and HTML."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Sequence

from clbench.core.foreign.names import escape_markdown
from clbench.report.formats.cells import BEST, SECOND, Cell, Grid

_CSS = {BEST: "font-weight: bold", SECOND: "text-decoration: underline"}


def to_markdown(grid: Grid) -> str:
    """A pipe table, aligned so that it reads well as plain text too."""
    header = [escape_markdown(title) for title in grid.titles]
    body = [[_markdown_cell(cell) for cell in row] for row in grid.rows]
    for i in sorted(grid.sections, reverse=True):
        title = f"*{escape_markdown(grid.sections[i])}*"
        body.insert(i, [title, *[""] * (len(header) - 1)])
    widths = [max(3, *map(len, column)) for column in zip(header, *body, strict=True)]
    ruler = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, grid.numeric, strict=True)
    ]
    lines = [header, ruler, *body]
    return "".join(_pipe_line(line, widths, grid.numeric) for line in lines)


def to_html(grid: Grid) -> str:
    """A ``table`` with its styles, made by pandas' Styler; the same grid gives the same text."""
    import pandas as pd
    from pandas.io.formats.style import Styler
    from pandas.io.formats.style_render import CSSDict

    columns = range(len(grid.header))  # titles need not be unique
    index = pd.MultiIndex.from_arrays([grid.above, columns]) if grid.above else pd.Index(columns)
    texts = [[cell.text for cell in row] for row in grid.rows]
    marks = [[_CSS.get(cell.mark, "") for cell in row] for row in grid.rows]
    for i in sorted(grid.sections, reverse=True):
        texts.insert(i, [grid.sections[i], *[""] * (len(columns) - 1)])
        marks.insert(i, ["font-style: italic", *[""] * (len(columns) - 1)])
    styles = [CSSDict(selector="th, td", props="padding: 0.2em 0.6em; text-align: left")]
    styles += [
        CSSDict(selector=f".col{j}", props="text-align: right; white-space: nowrap")
        for j, right in enumerate(grid.numeric)
        if right
    ]
    # Cells are styled by their id, so that of a table must not be that of another on the page.
    identity = hashlib.sha256(repr((grid.titles, texts, marks)).encode()).hexdigest()[:8]
    frame = pd.DataFrame(texts, columns=index)
    css = pd.DataFrame(marks, columns=index)
    styler = Styler(frame, uuid=identity, cell_ids=False).hide(axis="index").format(escape="html")
    if grid.above:
        styles.append(CSSDict(selector="th[colspan]", props="text-align: center"))
        styler = styler.format_index(lambda shared: html.escape(str(shared)), axis=1, level=0)
    titles = [html.escape(title) for title in grid.header]
    styler = styler.format_index(lambda j: titles[int(str(j))], axis=1, level=index.nlevels - 1)
    text: str = styler.apply(lambda _: css, axis=None).set_table_styles(styles).to_html()
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _pipe_line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return f"| {' | '.join(aligned)} |\n"


def _markdown_cell(cell: Cell) -> str:
    return marked(cell, escape_markdown, missing="", best="**{}**", second="<u>{}</u>")


def marked(cell: Cell, escape: Callable[[str], str], missing: str, best: str, second: str) -> str:
    """The text of a cell, in the form for the best or the second best if it is marked."""
    if not cell.text:
        return missing
    form = {BEST: best, SECOND: second}.get(cell.mark, "{}")
    return form.format(escape(cell.text))
