"""Keep a generated table inside a hand-written Markdown page.

``python -m clbench.report.embed README.md`` updates every table between
``<!-- table: FILE -->`` and ``<!-- end of table -->``; FILE is relative to the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic

_BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def embedded(page: Path) -> str:
    """The text of a page with its tables updated.

    Raises:
        ClbenchError: the page or one of its tables cannot be read.
    """

    def renewed(block: re.Match[str]) -> str:
        text = _read(page.parent / block[2])
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        return f"{block[1]}\n{body.strip()}\n\n{block[3]}"

    return _BLOCK.sub(renewed, _read(page))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror}") from error


def main() -> None:
    """Update the tables of the pages named on the command line."""
    try:
        for name in sys.argv[1:]:
            write_atomic(Path(name), embedded(Path(name)))
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
