"""One table as four files: Markdown, CSV, LaTeX and HTML with the same numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clbench.core.foreign.names import escape_markdown, to_cell
from clbench.report.formats.cells import Grid
from clbench.report.formats.latex import PACKAGES, to_latex
from clbench.report.formats.render import to_html, to_markdown


@dataclass(frozen=True)
class TableDocument:
    """A table with its title, warnings and notes.

    Attributes:
        stem: name of its files, without their endings.
        title: heading.
        grid: the table as printed.
        frame: the numbers as measured, for the CSV file.
        warnings: lines above the table: what it is not comparable with, and why.
        notes: lines below the table.
        index: whether the index of `frame` is part of the CSV file.
    """

    stem: str
    title: str
    grid: Grid
    frame: pd.DataFrame
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    index: bool = True

    def files(self) -> dict[str, str]:
        """File names and texts of all formats."""
        return {
            f"{self.stem}.md": self.markdown(),
            f"{self.stem}.csv": format_csv(self.frame, self.index),
            f"{self.stem}.tex": self.latex(),
            f"{self.stem}.html": self.html(),
        }

    def markdown(self) -> str:
        """The table as a section of Markdown."""
        above = "".join(f"{escape_markdown(line)}\n\n" for line in self.warnings)
        below = f"\n{escape_markdown(' '.join(self.notes))}\n" if self.notes else ""
        return f"## {escape_markdown(self.title)}\n\n{above}{to_markdown(self.grid)}{below}"

    def latex(self) -> str:
        r"""One or several ``tabular`` for ``\input``, with title and warnings as comments."""
        lines = [self.title, *self.warnings, f"needs {PACKAGES}"]
        # A line break in a name would end the comment.
        comments = "".join(f"% {' '.join(line.split())}\n" for line in lines)
        return comments + to_latex(self.grid)

    def html(self) -> str:
        """A self-contained page."""
        title = html.escape(self.title)
        above = "".join(f"<p>{html.escape(line)}</p>\n" for line in self.warnings)
        below = f"<p>{html.escape(' '.join(self.notes))}</p>\n" if self.notes else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<h2>{title}</h2>\n{above}{to_html(self.grid)}{below}</html>\n"
        )


def format_csv(frame: pd.DataFrame, index: bool) -> str:
    """The numbers of a data frame with ten digits, the same on every machine."""
    # Differences of equal numbers leave traces around 1e-17; adding zero turns -0.0 into 0.0.
    numbers = frame.select_dtypes("float")
    tidy = frame.copy()
    tidy[numbers.columns] = numbers.round(12) + 0.0
    texts = tidy.select_dtypes(exclude="number").columns
    tidy[texts] = tidy[texts].map(_cell)
    tidy = tidy.rename(index=_cell, columns=_cell)
    return tidy.to_csv(index=index, lineterminator="\n", float_format="%.10g")


def _cell(value: object) -> object:
    return to_cell(value) if isinstance(value, str) else value
