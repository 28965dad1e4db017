"""The page that sets all methods side by side, from their classes and their own pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clbench import registry
from clbench.core.method import Method

HEAD = (
    "method",
    "idea",
    "kept between tasks",
    "needs besides the task",
    "an image's task",
    "parity with released code",
    "published: Transfer / Avg / Last",
)
NUMBERS = ("Transfer", "Avg", "Last")
_CELL = re.compile(r"(?<!\\)\|")


def index_table(folder: Path) -> str:
    """A row per method that has a page, in the order of the registry.

    Args:
        folder: of the methods' pages.
    """
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [
        _row(name, cls, MethodPage(folder / f"{name}.md"))
        for name, cls in registry.methods().items()
        if (folder / f"{name}.md").exists()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str, cls: type[Method], page: MethodPage) -> tuple[str, ...]:
    return (
        f"[`{name}`]({name}.md)",
        page.paragraph(""),
        page.paragraph("What is stored"),
        ", ".join(sorted(need.replace("-", " ") for need in cls.needs)),
        _first_sentence(page.paragraph("Task identity")) or "not asked for",
        page.paragraph("Parity"),
        page.published(),
    )


class MethodPage:
    """The page of a method.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        parts = re.split(r"^##? (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        self._sections = dict(zip(parts[3::2], parts[4::2], strict=True))
        self._sections[""] = parts[2]  # below the title

    def paragraph(self, section: str) -> str:
        """The first paragraph of a section on one line; empty if there is no such section."""
        paragraphs = self._sections.get(section, "").strip().split("\n\n")
        return _CELL.sub(r"\\|", " ".join(paragraphs[0].split()))

    def published(self) -> str:
        """The first row of published numbers; empty if there is none."""
        for row in self._tables("Published numbers"):
            if all(row.get(metric) for metric in NUMBERS):
                numbers = " / ".join(row[metric] for metric in NUMBERS)
                return f"{numbers} ({row['benchmark']})"
        return ""

    def _tables(self, section: str) -> Iterator[dict[str, str]]:
        """Rows of the tables of a section whose first column is ``benchmark``."""
        head: list[str] = []
        for line in self._sections.get(section, "").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not line.startswith("|"):
                head = []
            elif not head:
                head = cells
            elif head[0] == "benchmark" and set(line) - set("|-: "):
                yield dict(zip(head, cells, strict=False))


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].removesuffix(".")
