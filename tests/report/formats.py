"""Reads the tables of a report back from its formats, as plain cells."""

from __future__ import annotations

import re
from html.parser import HTMLParser

Rows = list[list[str]]


def read_markdown(text: str) -> Rows:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    del lines[1]  # the ruler
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    marks = re.compile(r"\*\*|</?u>|^ \*(?!\*)|(?<!\*)\* *$|\\(?=[|*<>`])")
    return [[marks.sub("", cell).strip() for cell in row] for row in cells]


def read_latex(text: str) -> Rows:
    """The whole table, whatever parts it is set in; titles of blocks are left out."""
    columns: dict[tuple[str, ...], Rows] = {}
    for part in re.split(r"^\\par\\medskip$", text, flags=re.MULTILINE):
        head, *rows = _latex_rows(part)
        columns.setdefault(tuple(head), [head]).extend(rows)
    first, *others = columns.values()
    return [
        [*row, *(cell for other in others for cell in other[i][1:])] for i, row in enumerate(first)
    ]


def without_blocks(rows: Rows) -> Rows:
    """Rows without the column of titles of blocks, if that is the first."""
    named = [row[0] for row in rows[1:]]
    blocks = rows[0][0] == "" and not all(named)
    return [row[1:] for row in rows] if blocks else rows


def _latex_rows(text: str) -> Rows:
    stacked = re.compile(r"\\begin\{tabular\}\[t\]\{@\{\}l@\{\}\}(.*?)\\end\{tabular\}")
    text = stacked.sub(lambda match: match[1].replace("\\\\", " "), text)
    lines = [line for line in text.splitlines() if re.search(r"(?<!\\)&", line)]
    lines = [line for line in lines if not line.startswith("%")]
    cells = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
    spanning = re.compile(r"\\multicolumn\{(\d+)\}\{c\}\{(.*)\}")
    rows = []
    for row in cells:
        found = [spanning.fullmatch(cell.strip()) for cell in row]
        pairs = zip(row, found, strict=True)
        rows.append([(m[2], int(m[1])) if m else (cell, 1) for cell, m in pairs])
    return [[_plain(cell) for cell in row] for row in _with_above(rows)]


def read_html(text: str) -> Rows:
    reader = _Reader()
    reader.feed(text)
    return _with_above(reader.rows)


def _with_above(rows: list[list[tuple[str, int]]]) -> Rows:
    """Cells of rows of texts and numbers of columns; what is above titles is put before each."""
    whole = [[text for text, count in row for _ in range(count)] for row in rows]
    if all(count == 1 for _, count in rows[0]):
        return whole
    above, titles, *others = whole
    joined = (" ".join(pair).split() for pair in zip(above, titles, strict=True))
    return [[" ".join(words) for words in joined], *others]


def without_sections(rows: Rows) -> Rows:
    """Rows but those that only hold the title of a block."""
    return [row for row in rows if len(row) == 1 or any(row[1:])]


def _plain(cell: str) -> str:
    text = re.sub(r"\\(?:textbf|underline|rotatebox\{90\})\{(.*)\}", r"\1", cell.strip())
    commands = {
        r"$-$": "-",
        r"$\pm$": "±",
        r"$\Delta$": "Δ",
        r"$\dagger$": "†",
        r"$\ddagger$": "‡",
        r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^",
    }
    for command, sign in commands.items():
        text = text.replace(command, sign)
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return "" if text == "--" else text.replace(r"\textbackslash{}", "\\")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, int]]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", int(dict(attrs).get("colspan") or 1)))
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            text, count = self.rows[-1][-1]
            self.rows[-1][-1] = text + data, count
