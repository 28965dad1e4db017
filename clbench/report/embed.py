"""Keep what is generated inside a hand-written Markdown page: tables, and what studies found.

``python -m clbench.report.embed README.md`` updates every table between
``<!-- table: FILE -->`` and ``<!-- end of table -->``, and every list of findings between
``<!-- studies: FOLDER -->`` and ``<!-- end of studies -->``; FILE and FOLDER are relative to the
page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic

_BLOCK = re.compile(r"(<!-- (table|studies): (\S+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
IN_SHORT: Final = "**In short:** "
"""Begins the line of a study's page that says what it found."""


def embedded(page: Path) -> str:
    """The text of a page with its tables and findings updated.

    Raises:
        ClbenchError: the page, one of its tables or the page of a study cannot be read.
    """

    def renewed(block: re.Match[str]) -> str:
        make = _table if block[2] == "table" else _findings
        return f"{block[1]}\n{make(page.parent, block[3])}\n\n{block[4]}"

    return _BLOCK.sub(renewed, _read(page))


def _table(start: Path, file: str) -> str:
    """A table without its headings."""
    lines = _read(start / file).splitlines()
    return "\n".join(line for line in lines if not line.startswith("#")).strip()


def _findings(start: Path, folder: str) -> str:
    """A list of the studies whose pages lie in a folder: titles with links, what was found."""
    items = []
    for file in sorted((start / folder).glob("*.md")):
        lines = _read(file).splitlines()
        for line in lines:
            if line.startswith(IN_SHORT):
                link = (PurePosixPath(folder) / file.name).as_posix()
                items.append(f"- [{lines[0].removeprefix('# ')}]({link}) {line[len(IN_SHORT) :]}")
    return "\n".join(items)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror}") from error


def main() -> None:
    """Update what is generated in the pages named on the command line."""
    try:
        for name in sys.argv[1:]:
            write_atomic(Path(name), embedded(Path(name)))
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
