"""What is read off the runs of a study: a table, a figure, and the numbers of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from clbench.report.formats.cells import Cell, Grid
from clbench.studies.runs import Estimate, Runs, tenths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = str | int | float | Estimate | None
Row = Sequence[Value]


@dataclass(frozen=True)
class Table:
    """The table of a study.

    Attributes:
        header: column titles.
        rows: cells: texts, whole numbers, numbers (printed with one digit after the point) and
            estimates; None is an empty cell.
        notes: lines below.
        digits: for columns of other numbers, digits after the point.
        powers: columns of numbers of any magnitude, printed like ``1.2e-05``.
    """

    header: tuple[str, ...]
    rows: Sequence[Row]
    notes: tuple[str, ...] = ()
    digits: Mapping[str, int] = field(default_factory=dict)
    powers: tuple[str, ...] = ()

    def grid(self) -> Grid:
        """The table as printed."""
        rows = tuple(
            tuple(Cell(self._text(t, v)) for t, v in zip(self.header, row, strict=True))
            for row in self.rows
        )
        columns = zip(*self.rows, strict=True)
        numeric = tuple(not any(isinstance(v, str) for v in column) for column in columns)
        return Grid(self.header, rows, numeric)

    def frame(self) -> pd.DataFrame:
        """The numbers as measured, with the ends of intervals in columns of their own."""
        columns: dict[str, list[object]] = {}
        for title, *values in zip(self.header, *self.rows, strict=True):
            estimates = [v for v in values if isinstance(v, Estimate)]
            columns[title] = [v.value if isinstance(v, Estimate) else v for v in values]
            for end in ("low", "high") if estimates else ():
                columns[f"{title} {end}"] = [getattr(v, end, None) for v in values]
        return pd.DataFrame(columns)

    def _text(self, title: str, value: Value) -> str:
        if value is None or value != value:
            return ""
        if isinstance(value, float) and title in self.powers:
            return f"{value:.1e}"
        if isinstance(value, float):
            return f"{value:.{self.digits[title]}f}" if title in self.digits else tenths(value)
        return str(value)


class Answer(Protocol):
    """What a module of `clbench.studies.answers` defines.

    A study whose runs need something that must be made first defines ``prepare()``, which makes
    what is missing and shows how far it has come. One that measures something besides runs defines
    ``measure(quick)``, which returns numbers by name that fit into JSON.
    """

    def table(self, runs: Runs) -> Table:
        """The table."""

    def draw(self, runs: Runs) -> Figure:
        """The figure."""

    def numbers(self, runs: Runs) -> Mapping[str, str]:
        """What stands for ``{name}`` in the text of the answer; not asked for of smoke runs."""
