"""Writes average ranks with their diagram, and how benchmarks agree on the order of methods."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.results.result import RunResult
from clbench.report.figures.draw import FOLDER, DrawnFigure, write_figure
from clbench.report.ranks.tables import (
    Ranking,
    correlation_document,
    make_ranking,
    ranking_document,
)
from clbench.report.tables.documents import TableDocument, format_csv
from clbench.report.tables.groups import comparable_groups


def write_ranks(results: Iterable[RunResult], out: Path) -> list[Path]:
    """Write ``ranks.*`` for every group of runs with three methods, and ``rank-correlation.*``.

    Args:
        results: runs of any benchmarks.
        out: folder of the report; as in it, several groups have a folder each.

    Returns:
        The files written; none where there are too few methods.

    Raises:
        ClbenchError: there are no results, two contradict each other, or a file cannot be written.
    """
    groups = comparable_groups(results)
    paths: list[Path] = []
    for group in groups:
        if (ranking := make_ranking(group)) is not None:
            folder = out / group.name if len(groups) > 1 else out
            paths += _write(ranking_document(ranking), folder)
            paths += write_figure(_figure(ranking), folder / FOLDER)
    if (correlation := correlation_document(groups)) is not None:
        paths += _write(correlation, out)
    return paths


def _write(document: TableDocument, folder: Path) -> list[Path]:
    texts = {"md": document.markdown(), "csv": format_csv(document.frame, document.index)}
    for form, text in texts.items():
        write_atomic(folder / f"{document.stem}.{form}", text)
    return [folder / f"{document.stem}.{form}" for form in texts]


def _figure(ranking: Ranking) -> DrawnFigure:
    # matplotlib takes half a second to import.
    from clbench.report.figures.style import figure_settings, settle
    from clbench.report.ranks.figures import draw_ranks

    caption = "Average ranks over tasks; bars join methods that do not differ (Nemenyi's test)."
    with figure_settings():
        figure = draw_ranks(ranking)
        settle(figure)
    return DrawnFigure("ranks", "Average ranks", caption, figure)
