"""Write the tables of a set of runs to a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.result import RunResult
from clbench.core.task import Setting
from clbench.report.comparison import Comparison, comparison_grid
from clbench.report.documents import TableDocument
from clbench.report.grid import matrix_grid, per_task_grid, summary_grid
from clbench.report.groups import ComparableGroup, comparable_groups, file_name, method_runs
from clbench.report.matrix_csv import format_matrix_csv
from clbench.report.published_table import NOTE as PUBLISHED_NOTE
from clbench.report.published_table import (
    NOTHING_PUBLISHED,
    Deviation,
    published_grid,
    published_table,
)
from clbench.report.render import to_markdown
from clbench.report.side_by_side import side_by_side, side_by_side_grid
from clbench.report.tables import matrix_table, per_task_table, per_task_values, summary_table

_NOTE = (
    "Accuracies in percent, mean ± sample standard deviation over n seeds (no spread for one "
    "seed); best in bold, second underlined."
)
_CLASS_INCREMENTAL_NOTE = (
    "Avg is the mean over steps of the accuracy on all classes seen so far, Last that after the "
    "final step, both over images."
)
_PER_TASK_NOTE = (
    "Accuracies in percent, mean over n seeds; best in bold, second underlined. The spread and "
    "the number of test images are in per-task.csv."
)
_STORAGE_NOTE = (
    "Storage-free methods keep nothing between tasks but the model, and use no data from elsewhere."
)
_SIDE_BY_SIDE_NOTE = (
    "Accuracies in percent, mean ± sample standard deviation over n seeds (no spread for one "
    "seed); best of each column in bold, second underlined. Columns are different benchmarks: "
    "their numbers are not to be compared with each other."
)
_DELTA_NOTE = "Δ is the difference to the model before training."


def write_report(
    results: Iterable[RunResult],
    out: Path,
    *,
    comparisons: Sequence[Comparison] = (),
    deviation: Deviation | None = None,
) -> list[Path]:
    """Write summary, per-task tables and matrices as Markdown, CSV, LaTeX and HTML.

    Runs that may not be compared get a folder each, and a common ``summary.md`` that says why;
    orders of one benchmark, and numbers of class-incremental steps, get a table that spans
    them. The same results give the same bytes, whatever their order. Files of earlier reports
    that are not written again stay where they are.

    Args:
        results: runs of any benchmarks.
        out: folder, made if missing.
        comparisons: of two methods each, to be written beside the tables of their group.
        deviation: if given, published numbers are put beside the measured ones; says in which
            way a run was not made with its recipe.

    Returns:
        The files written.

    Raises:
        ClbenchError: there are no results, two contradict each other, or a file cannot be
            written.
    """
    groups = comparable_groups(results)
    files: dict[str, str] = {}
    for group in groups:
        folder = f"{group.name}/" if len(groups) > 1 else ""
        tables = group_tables(group, comparisons, deviation)
        written = {name: text for table in tables for name, text in table.files().items()}
        files |= {folder + name: text for name, text in (written | _matrices(group)).items()}
    spanning = spanning_tables(groups)
    files |= {name: text for table in spanning for name, text in table.files().items()}
    if len(groups) > 1:
        tables = [*spanning, *(_summary(group) for group in groups)]
        files["summary.md"] = "\n".join(table.markdown() for table in tables)
    for name, text in files.items():
        write_atomic(out / name, text)
    return [out / name for name in files]


def spanning_tables(groups: Sequence[ComparableGroup]) -> list[TableDocument]:
    """Tables with the orders of a benchmark, or its numbers of steps, side by side."""
    documents = []
    for table in side_by_side(groups):
        frame = table.table()
        frame.columns = frame.columns.map(" ".join)
        grid = side_by_side_grid(table)
        documents.append(
            TableDocument(table.name, table.title, grid, frame, notes=[_SIDE_BY_SIDE_NOTE])
        )
    return documents


def group_tables(
    group: ComparableGroup,
    comparisons: Sequence[Comparison] = (),
    deviation: Deviation | None = None,
) -> list[TableDocument]:
    """All tables of runs that may be compared, the summary first; arguments of `write_report`."""
    tables = _group_tables(group)
    tables += [_comparison_table(c) for c in comparisons if c.group == group]
    return tables + ([] if deviation is None else [_published_table(group, deviation)])


def _group_tables(group: ComparableGroup) -> list[TableDocument]:
    per_task = TableDocument(
        "per-task",
        group.title,
        per_task_grid(per_task_table(group.results)),
        per_task_values(group.results),
        _warnings(group),
        [_PER_TASK_NOTE],
        index=False,
    )
    return [_summary(group), per_task]


def _summary(group: ComparableGroup) -> TableDocument:
    table = summary_table(group.results)
    grid = summary_grid(table, group.setting)
    notes = [_NOTE]
    if group.setting is Setting.CLASS_INCREMENTAL:
        notes.append(_CLASS_INCREMENTAL_NOTE)
    if any(title.startswith("Δ") for title in grid.header):
        notes.append(_DELTA_NOTE)
    if grid.sections:
        notes.append(_STORAGE_NOTE)
    return TableDocument("summary", group.title, grid, table, _warnings(group), notes)


def _comparison_table(comparison: Comparison) -> TableDocument:
    return TableDocument(
        file_name("compare-" + "-".join(comparison.methods)),
        comparison.title,
        comparison_grid(comparison),
        comparison.table,
        _warnings(comparison.group),
        comparison.notes,
    )


def _published_table(group: ComparableGroup, deviation: Deviation) -> TableDocument:
    table = published_table(group.results, deviation)
    notes = [PUBLISHED_NOTE] if len(table) else [NOTHING_PUBLISHED]
    grid = published_grid(table)
    title = f"Published and measured: {group.title}"
    return TableDocument("published", title, grid, table, _warnings(group), notes, index=False)


def _warnings(group: ComparableGroup) -> list[str]:
    return [line for line in (group.reason, *group.notes) if line]


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
    table = to_markdown(matrix_grid(matrix_table(result)))
    return f"## {heading}\n\n{table}\nAccuracy in percent. Test images: {images}.\n"
