"""Printed tables, independent of the format: cells of text with the best ones marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    rules: frozenset[int] = frozenset()
    sections: Mapping[int, str] = field(default_factory=dict)
