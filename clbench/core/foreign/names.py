"""Names that somebody else chose, of folders, classes, files and methods, made fit to be shown.

A terminal obeys control characters, a spreadsheet computes cells that begin with an equals sign,
and Markdown passes HTML on. This is the one place where names lose these powers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

KEPT: Final = frozenset("\n\t")
"""Control characters that do no harm."""
_SPACES: Final = dict.fromkeys(map(ord, KEPT), " ")
COMPUTED: Final = frozenset("=+-@\t\r'")
"""What makes a spreadsheet compute a cell; and the apostrophe, which keeps it from doing so."""
HTML: Final = re.compile(r"[|]|<(?=[A-Za-z/!?])")
"""What ends a cell of a table in Markdown, and what begins HTML there."""
MARKUP: Final = re.compile(rf"[*`]|{HTML.pattern}")
"""The same, and what makes up emphasis and code."""


def printable(text: str) -> str:
    r"""The text with control characters shown instead of obeyed; line breaks and tabs stay.

    Marks that turn the direction of writing, and bytes that were no text, are shown, too.

    >>> print(printable("plain \x1b[2J\u202e"))
    plain \x1b[2J\u202e
    """
    if text.isprintable():  # nearly all are, and tables of long runs have many cells
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in KEPT or unicodedata.category(character) == "Zs"


def to_cell(text: str) -> str:
    """A text as a cell of a CSV file, which no spreadsheet takes for a formula.

    >>> [to_cell(text) for text in ("cat", "=1+1", "-0.5", "'quoted")]
    ['cat', "'=1+1", '-0.5', "''quoted"]
    """
    return f"'{text}" if text[:1] in COMPUTED and text and not _is_number(text) else text


def from_cell(cell: str) -> str:
    """The text that `to_cell` made a cell of.

    >>> [from_cell(cell) for cell in ("cat", "'=1+1", "-0.5", "''quoted", "'n")]
    ['cat', '=1+1', '-0.5', "'quoted", "'n"]
    """
    return cell[1:] if cell[:1] == "'" and cell[1:2] in COMPUTED and cell[1:] else cell


def escape_markdown(text: str) -> str:
    r"""The text in one line of Markdown that shows it as it is.

    >>> print(escape_markdown("a|b *c*"))
    a\|b \*c\*
    """
    return MARKUP.sub(r"\\\g<0>", _one_line(text))


def escape_html(text: str) -> str:
    r"""Markdown as it is, in one line of a table, but with HTML shown instead of passed on.

    >>> print(escape_html("`x` < 1 or <b>"))
    `x` < 1 or \<b>
    """
    return HTML.sub(r"\\\g<0>", _one_line(text))


def _one_line(text: str) -> str:
    return printable(text.translate(_SPACES))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
