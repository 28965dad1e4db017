"""Printed tables as LaTeX that fits the text of an A4 page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clbench.report.formats.cells import Cell, Grid
from clbench.report.formats.fitting import Part, fitting_parts, upright
from clbench.report.formats.render import marked
from clbench.report.formats.widths import wrapped

PACKAGES = r"\usepackage{booktabs,graphicx}"
_NEGATIVE = re.compile(r"(?<![\w.+-])-(?=\d)")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_latex(grid: Grid) -> str:
    r"""A ``tabular`` with booktabs rules, or several below each other where one does not fit.

    The document needs `PACKAGES`. Wide tables are set smaller, with upright titles, and at last in
    parts, each with the titles of the rows.
    """
    return "\n\\par\\medskip\n".join(map(_part, fitting_parts(grid)))


def escape_latex(text: str) -> str:
    r"""The text with LaTeX's special characters made printable.

    >>> print(escape_latex("a_b & 50%"))
    a\_b \& 50\%
    """
    return "".join(_SPECIAL.get(character, character) for character in text)


def _part(part: Part) -> str:
    grid, style = part.grid, part.style
    columns = "".join("r" if right else "l" for right in grid.numeric)
    gap = f"\\setlength{{\\tabcolsep}}{{{style.gap / 2:g}pt}}"
    turned = upright(grid, style)
    head = [_head(title, j in turned) for j, title in enumerate(grid.header)]
    lines = [f"{{\\noindent{style.size.command}{gap}%", f"\\begin{{tabular}}{{{columns}}}"]
    lines += ["\\toprule", *_above(grid), _line(head), "\\midrule"]
    for i, row in enumerate(grid.rows):
        if i in grid.rules:
            lines.append("\\midrule")
        if i in grid.sections:
            title = f"\\textit{{{escape_latex(grid.sections[i])}}}"
            lines.append(f"\\multicolumn{{{len(row)}}}{{l}}{{{title}}} \\\\")
        lines.append(_line([_cell(cell, j, part) for j, cell in enumerate(row)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}"]) + "\n"


def _above(grid: Grid) -> list[str]:
    """What groups of columns share, each with a rule below it; no lines if none share anything."""
    heads, rules, column = [], [], 1
    for text, count in grid.spans:
        heads.append(f"\\multicolumn{{{count}}}{{c}}{{{escape_latex(text)}}}" if text else "")
        rules += [f"\\cmidrule(lr){{{column}-{column + count - 1}}}"] if text else []
        column += count
    return [_line(heads), "".join(rules)] if rules else []


def _head(title: str, turned: bool) -> str:
    return f"\\rotatebox{{90}}{{{escape_latex(title)}}}" if turned else escape_latex(title)


def _cell(cell: Cell, column: int, part: Part) -> str:
    missing = "" if column == 0 else "--"

    def text(value: str) -> str:
        width = part.wrapped.get(column)
        lines = [value] if width is None else wrapped(value, part.style.size, width)
        if len(lines) == 1:
            return _value(value)
        stacked = r"\\".join(map(_value, lines))
        return f"\\begin{{tabular}}[t]{{@{{}}l@{{}}}}{stacked}\\end{{tabular}}"

    return marked(cell, text, missing, best="\\textbf{{{}}}", second="\\underline{{{}}}")


def _value(text: str) -> str:
    """Escaped, with a minus in place of the shorter hyphen of negative numbers."""
    return "$-$".join(escape_latex(part) for part in _NEGATIVE.split(text))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
