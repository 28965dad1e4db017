"""Keep the tables of hyper-parameters in the methods' pages as the signatures have them.

``python -m clbench.cli.pages docs/methods/*.md`` renews what stands between
``<!-- hyper-parameters -->`` and ``<!-- end of hyper-parameters -->`` in the page of each method,
which is named like it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.hyperparameters import markdown_table

_BLOCK = re.compile(
    r"(<!-- hyper-parameters -->\n).*?(<!-- end of hyper-parameters -->)", re.DOTALL
)


def renewed(page: Path) -> str:
    """The text of a method's page with the table as its signature has it.

    Raises:
        ClbenchError: the page cannot be read, has no place for the table, or is of no method.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ClbenchError(f"cannot read {page}: {error.strerror}") from error
    table = markdown_table(registry.method(page.stem).schema())
    text, count = _BLOCK.subn(lambda block: f"{block[1]}\n{table}\n{block[2]}", text)
    if count != 1:
        raise ClbenchError(
            f"{page} needs one pair of lines '<!-- hyper-parameters -->' and "
            f"'<!-- end of hyper-parameters -->', found {count}"
        )
    return text


def main() -> None:
    """Renew the pages named on the command line."""
    try:
        for name in sys.argv[1:]:
            write_atomic(Path(name), renewed(Path(name)))
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
