"""Printed tables, independent of the format: cells of text with the best ones marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

BEST = "best"
SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """A printed value; an empty text is a missing one. `mark` is `BEST`, `SECOND` or empty."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Grid:
    """A printed table.

    Attributes:
        header: column titles.
        rows: cells, as many per row as there are titles.
        numeric: for each column, whether it is aligned to the right.
        rules: indices of rows that begin a new block.
        sections: titles of blocks, by the index of their first row.
        above: for each column, what it shares with its neighbours, printed once above them; empty
            for a column that stands alone, and as a whole where all do.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    rules: frozenset[int] = frozenset()
    sections: Mapping[int, str] = field(default_factory=dict)
    above: tuple[str, ...] = ()

    def part(self, columns: Sequence[int]) -> Grid:
        """The same rows with some of the columns, by their indices."""
        return replace(
            self,
            header=tuple(self.header[j] for j in columns),
            rows=tuple(tuple(row[j] for j in columns) for row in self.rows),
            numeric=tuple(self.numeric[j] for j in columns),
            above=tuple(self.above[j] for j in columns) if self.above else (),
        )

    @property
    def titles(self) -> tuple[str, ...]:
        """Column titles where there is one line for them."""
        if not self.above:
            return self.header
        pairs = zip(self.above, self.header, strict=True)
        return tuple(f"{shared} {title}".strip() for shared, title in pairs)

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The line above the titles: texts, and how many columns each is above."""
        grouped = ((shared, len(list(run))) for shared, run in groupby(self.above))
        return [
            part
            for shared, count in grouped
            for part in ([(shared, count)] if shared else [("", 1)] * count)
        ]
