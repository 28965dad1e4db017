"""Writes the page, the figure and the table of a study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.report.embed import IN_SHORT
from clbench.report.formats.render import to_markdown
from clbench.report.tables.documents import format_csv
from clbench.studies.analysis import Table
from clbench.studies.make import Made

_NAME: Final = re.compile(r"\{([^{}]+)\}")
SMOKE: Final = "Smoke runs: these numbers mean nothing."


def write_study(made: Made, out: Path, page: Path | None = None) -> list[Path]:
    """Write ``table.csv`` into the study's folder, and page and figure beside each other.

    The same results give the same bytes with the same version of matplotlib.

    Args:
        made: the study and its runs.
        out: the folder.
        page: file of the page; ``<out>/README.md`` if None.

    Returns:
        The files written.

    Raises:
        ClbenchError: the answer names a number that does not exist, or a file cannot be written.
    """
    # matplotlib takes half a second to import.
    from clbench.report.figures.style import figure_settings, file_bytes, settle

    page = page or out / "README.md"
    picture = page.with_name(f"{made.study.name}.svg")
    table = made.study.module.table(made.runs)
    with figure_settings():
        figure = made.study.module.draw(made.runs)
        settle(figure)
        content = file_bytes(figure, "svg")
    text = page_text(made, table, picture.name)
    files: dict[Path, str | bytes] = {
        out / "table.csv": format_csv(table.frame(), index=False),
        picture: content,
        page: text,
    }
    for path, data in files.items():
        write_atomic(path, data)
    return list(files)


def page_text(made: Made, table: Table, picture: str) -> str:
    """The page: finding, question, what was run, figure, table, answer, what would change it.

    Args:
        made: the study and its runs.
        table: its table.
        picture: name of the figure's file beside the page.

    Raises:
        ClbenchError: the answer names a number that does not exist.
    """
    study, file = made.study, made.study.file
    notes = "".join(f"\n{note}\n" for note in table.notes)
    finding = answer = SMOKE
    if not made.quick:
        numbers = study.module.numbers(made.runs)
        finding, answer = filled(file.finding, numbers), filled(file.answer, numbers)
    parts = [
        f"# {file.title}",
        f"{IN_SHORT}{finding.strip()}",
        file.question.strip(),
        f"## What was run\n\n{_told(made)}",
        f"## Figure\n\n![{file.title}]({picture})\n\n{file.caption.strip()}",
        f"## Table\n\n{to_markdown(table.grid())}{notes}".rstrip(),
        f"## Answer\n\n{answer.strip()}",
        f"## What would change it\n\n{file.changes.strip()}",
        f"## On real data\n\n```bash\n{file.commands.strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def filled(text: str, numbers: Mapping[str, str]) -> str:
    """A text with its numbers.

    >>> filled("It is {last}.", {"last": "54.1 [53.0, 55.2]"})
    'It is 54.1 [53.0, 55.2].'

    Raises:
        ClbenchError: a number does not exist.
    """

    def number(found: re.Match[str]) -> str:
        if found[1] not in numbers:
            raise ClbenchError(f"the answer names {found[0]}; there are {', '.join(numbers)}")
        return numbers[found[1]]

    return _NAME.sub(number, text)


def _told(made: Made) -> str:
    """The runs in words."""
    lines = [f"`clbench study {made.study.name}`"]
    if made.runs:
        results = [run.result for run in made.runs]
        names = ", ".join(f"`{n}`" for n in dict.fromkeys(r.benchmark.name for r in results))
        methods = ", ".join(dict.fromkeys(f"`{r.method.name}`" for r in results))
        seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in results}))
        lines.append(
            f"{len(results)} run{'s' * (len(results) != 1)} on {names}: {methods}; seeds {seeds}."
        )
    else:
        lines.append("nothing is trained.")
    return ": ".join(lines)
