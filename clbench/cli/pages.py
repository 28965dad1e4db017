"""Generate the tables in the documentation from the code.

``python -m clbench.cli.pages docs/settings.md docs/methods/*.md`` regenerates the text between
``<!-- hyper-parameters -->`` and ``<!-- end of hyper-parameters -->`` in the page of each method,
which is named like it; likewise between those of ``settings`` in ``settings.md``, and of
``methods`` in the ``index.md`` beside the methods' pages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from clbench import registry
from clbench.cli.method_index import index_table
from clbench.cli.reference import settings_page
from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.hyperparameters import markdown_table

SETTINGS, INDEX = "settings", "index"
"""Stems of the pages of all settings and of all methods; those of other names are a method's."""


def renewed(page: Path) -> str:
    """The text of a page with its tables regenerated.

    Raises:
        ClbenchError: the page cannot be read, has no place for the tables, or is of no method.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ClbenchError(f"cannot read {page}: {error.strerror}") from error
    if page.stem == SETTINGS:
        mark, tables = SETTINGS, settings_page()
    elif page.stem == INDEX:
        mark, tables = "methods", index_table(page.parent)
    else:
        mark, tables = "hyper-parameters", markdown_table(registry.method(page.stem).schema())
    block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    text, count = block.subn(lambda found: f"{found[1]}\n{tables}\n{found[2]}", text)
    if count != 1:
        raise ClbenchError(
            f"{page} needs one pair of lines '<!-- {mark} -->' and '<!-- end of {mark} -->', "
            f"found {count}"
        )
    return text


def main() -> None:
    """Regenerate the tables of the pages named on the command line."""
    try:
        for name in sys.argv[1:]:
            write_atomic(Path(name), renewed(Path(name)))
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
