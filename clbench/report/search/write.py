"""Writes the tables and figures of a search beside its trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.report.search.figures import search_figures
from clbench.report.search.read import SearchRecord, read_search
from clbench.report.search.tables import search_documents
from clbench.report.tables.documents import format_csv


def search_texts(out: Path, titles: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tables of a search: ``summary.md`` and ``summary.csv`` with their texts.

    Args:
        out: folder of the search, with ``trials.json`` and ``results/``.
        titles: what methods are called; others go by their names.

    Raises:
        ClbenchError: a file is missing, damaged or contradicts another.
    """
    return _texts(read_search(out, titles))


def write_search(out: Path, titles: Mapping[str, str] | None = None) -> list[Path]:
    """Write ``summary.md``, ``summary.csv`` and the figures of a search into its folder.

    The same trials give the same bytes with the same version of matplotlib.

    Args:
        out: folder of the search, with ``trials.json`` and ``results/``.
        titles: what methods are called; others go by their names.

    Returns:
        The files written.

    Raises:
        ClbenchError: a file is missing, damaged or contradicts another, or cannot be written.
    """
    record = read_search(out, titles)
    pictures = {f"{name}.svg": content for name, content in search_figures(record).items()}
    files: dict[str, str | bytes] = {**_texts(record), **pictures}
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def _texts(record: SearchRecord) -> dict[str, str]:
    tables = search_documents(record)
    return {
        "summary.md": "\n".join(table.markdown() for table in tables),
        "summary.csv": format_csv(tables[0].frame, index=True),
    }
