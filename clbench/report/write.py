"""Write the tables of a set of runs to a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.foreign.names import escape_markdown
from clbench.core.results.result import RunResult
from clbench.report.formats.render import to_markdown
from clbench.report.tables.collection import (
    Paired,
    group_tables,
    spanning_tables,
    summary_document,
)
from clbench.report.tables.foreign import ForeignMatrix, foreign_tables
from clbench.report.tables.grid import WHOLE, View, matrix_grid
from clbench.report.tables.groups import ComparableGroup, comparable_groups, file_name, method_runs
from clbench.report.tables.matrix_csv import format_matrix_csv
from clbench.report.tables.published import Deviation


def write_report(
    results: Iterable[RunResult],
    out: Path,
    *,
    comparisons: Sequence[Paired] = (),
    deviation: Deviation | None = None,
    foreign: Sequence[ForeignMatrix] = (),
    view: View = WHOLE,
) -> list[Path]:
    """Write summary, per-task tables and matrices as Markdown, CSV, LaTeX and HTML.

    Runs that are not comparable get separate folders and a common ``summary.md`` with the reason;
    orders of one benchmark, and numbers of class-incremental steps, get a table that spans
    them. The same results give the same bytes, whatever their order. Files of earlier reports
    that are not written again stay where they are.

    Args:
        results: runs of any benchmarks.
        out: folder, created if missing.
        comparisons: of two methods, of all with one, or of what papers found with what these runs
            have, written beside the tables of their group.
        deviation: if given, published numbers are put beside the measured ones; says in which
            way a run was not made with its recipe.
        foreign: matrices from elsewhere, to be put beside the runs with the same tasks.
        view: which methods and columns are shown, and in which order.

    Returns:
        The files written.

    Raises:
        ClbenchError: there are neither results nor foreign matrices, two results contradict each
            other, or a file cannot be written.
    """
    files = report_files(
        results, comparisons=comparisons, deviation=deviation, foreign=foreign, view=view
    )
    for name, text in files.items():
        write_atomic(out / name, text)
    return [out / name for name in files]


def report_files(
    results: Iterable[RunResult],
    *,
    comparisons: Sequence[Paired] = (),
    deviation: Deviation | None = None,
    foreign: Sequence[ForeignMatrix] = (),
    view: View = WHOLE,
) -> dict[str, str]:
    """What `write_report` writes: path inside the folder to text."""
    results = list(results)
    every = comparable_groups(results) if results or not foreign else []
    groups = [replace(group, results=tuple(view.shown(group.results))) for group in every]
    groups = [group for group in groups if group.results]
    files: dict[str, str] = {}
    for group in groups:
        folder = f"{group.name}/" if len(every) > 1 else ""
        tables = group_tables(group, comparisons, deviation, view)
        written = {name: text for table in tables for name, text in table.files().items()}
        files |= {folder + name: text for name, text in (written | _matrices(group)).items()}
    spanning = [*spanning_tables(groups), *foreign_tables(groups, foreign)]
    files |= {name: text for table in spanning for name, text in table.files().items()}
    if len(every) > 1:
        tables = [*spanning, *(summary_document(group, view) for group in groups)]
        files["summary.md"] = "\n".join(table.markdown() for table in tables)
    return files


def _matrices(group: ComparableGroup) -> dict[str, str]:
    files = {}
    for row in method_runs(group.results):
        for result in row.results:
            stem = f"matrices/{file_name(row.slug)}-seed{result.seed}"
            heading = f"{row.label}, seed {result.seed}"
            files[f"{stem}.md"] = _matrix_markdown(heading, result)
            files[f"{stem}.csv"] = format_matrix_csv(result.matrix)
    return files


def _matrix_markdown(heading: str, result: RunResult) -> str:
    images = ", ".join(
        f"{task} {count}"
        for task, count in zip(result.benchmark.tasks, result.accuracy.counts, strict=True)
    )
    table = to_markdown(matrix_grid(result.matrix.to_frame()))
    below = f"Accuracy in percent. Test images: {escape_markdown(images)}."
    return f"## {escape_markdown(heading)}\n\n{table}\n{below}\n"
