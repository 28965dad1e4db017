"""How wide text is in Computer Modern, so that tables can be laid out before LaTeX sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from clbench.report.formats.cells import BEST, Cell

_ADVANCES: Final = {
    "!',.:;<[]_`il": 278,
    "fj": 306,
    "-": 333,
    "I": 361,
    "()t": 389,
    "rs": 394,
    "cez": 444,
    '>?"$*/0123456789\\^ago{}~': 500,
    "J": 514,
    "kqvxy": 528,
    "Sbdhnpu": 556,
    "ZLF": 640,
    "EPBCTwR": 736,
    "AHNUVXYDG&+=@KOQ": 785,
    "#%m±Δ": 833,
    "MW|": 1028,
    " ": 333,
}
"""Characters by their advance in cmr10, in thousandths of the size."""
_WIDTHS: Final = {
    c: advance / 1000 for characters, advance in _ADVANCES.items() for c in characters
}
_BOLD: Final = 1.16
"""Width of cmbx10 relative to cmr10."""
_UNKNOWN: Final = 1.0
_SPACE: Final = re.compile(" (?![†‡])")
"""A mark stays with its word."""


@dataclass(frozen=True)
class TypeSize:
    """A size of type in a ten-point document.

    Attributes:
        command: of LaTeX; empty for the size of the document.
        points: size.
        leading: distance of lines in points.
        broader: width of its characters relative to cmr10 scaled to the size.
    """

    command: str
    points: float
    leading: float
    broader: float


SIZES: Final = (
    TypeSize("", 10.0, 12.0, 1.0),
    TypeSize("\\small", 9.0, 11.0, 1.03),
    TypeSize("\\footnotesize", 8.0, 9.5, 1.07),
    TypeSize("\\scriptsize", 7.0, 8.0, 1.14),
)


@lru_cache(maxsize=1 << 16)
def text_width(text: str, size: TypeSize) -> float:
    """Width of a line in points, rather too large than too small.

    >>> round(text_width("88.4", SIZES[0]), 1)
    17.8
    """
    return sum(_WIDTHS.get(c, _UNKNOWN) for c in text) * size.points * size.broader


def cell_width(cell: Cell, size: TypeSize) -> float:
    """Width of a cell on one line in points."""
    return text_width(cell.text, size) * (_BOLD if cell.mark == BEST else 1.0)


def wrapped(text: str, size: TypeSize, width: float) -> list[str]:
    """The text in lines of at most a width in points, broken at spaces and where words allow it.

    >>> wrapped("Zero-shot CLIP (before training)", SIZES[0], 80)
    ['Zero-shot CLIP', '(before training)']
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(text, size, width):
        if line and text_width((line + piece).rstrip(), size) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _pieces(text: str, size: TypeSize, width: float) -> list[str]:
    """What a line may be broken between: words, their parts, and single characters if need be."""
    pieces: list[str] = []
    for word in _SPACE.sub(" \0", text).split("\0"):
        parts = [word]
        if text_width(word.rstrip(), size) > width:
            for joint in "-_/,=.:;":
                parts = [p for part in parts for p in part.replace(joint, f"{joint}\0").split("\0")]
        for part in parts:
            fits = text_width(part.rstrip(), size) <= width
            pieces += [part] if fits else list(part)
    return [piece for piece in pieces if piece]
