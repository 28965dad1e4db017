"""The tables of comparable runs, for files and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from clbench.core.task import Setting
from clbench.report.paired.against import Against
from clbench.report.paired.claims import Claims
from clbench.report.paired.comparison import Comparison
from clbench.report.probed.tables import probe_documents
from clbench.report.tables.documents import TableDocument
from clbench.report.tables.frames import per_task_table, per_task_values
from clbench.report.tables.grid import (
    SHARED_NOTE,
    WHOLE,
    View,
    has_shared_times,
    per_task_grid,
    summary_grid,
)
from clbench.report.tables.groups import ComparableGroup
from clbench.report.tables.published import (
    Deviation,
    published_grid,
    published_notes,
    published_table,
)
from clbench.report.tables.side_by_side import side_by_side, side_by_side_grid

Paired = Comparison | Against | Claims
"""Differences of methods on the same test images."""

_NOTE = (
    "Accuracies in percent, mean ± sample standard deviation over n seeds (no spread for one "
    "seed); best in bold, second underlined."
)
_CLASS_INCREMENTAL_NOTE = (
    "Avg is the mean over steps of the accuracy on all classes seen so far, Last that after the "
    "final step, both over images."
)
_DOMAIN_INCREMENTAL_NOTE = (
    "All tasks have the same classes. Avg is the mean over tasks of the accuracy on all those "
    "learned so far, Last that after the final one, both over images; Transfer, which is about "
    "classes not yet learned, does not exist."
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
    comparisons: Sequence[Paired] = (),
    deviation: Deviation | None = None,
    view: View = WHOLE,
) -> list[TableDocument]:
    """All tables of comparable runs, the summary first."""
    tables = _group_tables(group, view)
    tables += [_comparison_table(c) for c in comparisons if c.group.name == group.name]
    return tables + ([] if deviation is None else [_published_table(group, deviation)])


def _group_tables(group: ComparableGroup, view: View) -> list[TableDocument]:
    labels = list(view.summary(group.results).index)
    per_task = TableDocument(
        "per-task",
        group.title,
        per_task_grid(per_task_table(group.results, labels)),
        per_task_values(group.results),
        _warnings(group),
        [_PER_TASK_NOTE],
        index=False,
    )
    return [summary_document(group, view), per_task, *probe_documents(group)]


def summary_document(group: ComparableGroup, view: View = WHOLE) -> TableDocument:
    """The summary table, with the notes that explain its columns."""
    table = view.summary(group.results)
    grid = summary_grid(table, group.setting, view.columns)
    notes = [_NOTE]
    if group.setting is Setting.CLASS_INCREMENTAL:
        notes.append(_CLASS_INCREMENTAL_NOTE)
    if group.setting is Setting.DOMAIN_INCREMENTAL:
        notes.append(_DOMAIN_INCREMENTAL_NOTE)
    if any(title.startswith("Δ") for title in grid.header):
        notes.append(_DELTA_NOTE)
    if grid.sections:
        notes.append(_STORAGE_NOTE)
    if has_shared_times(grid):
        notes.append(SHARED_NOTE)
    return TableDocument("summary", group.title, grid, table, _warnings(group), notes)


def _comparison_table(comparison: Paired) -> TableDocument:
    return TableDocument(
        comparison.stem,
        comparison.title,
        comparison.grid(),
        comparison.table,
        _warnings(comparison.group),
        comparison.notes,
    )


def _published_table(group: ComparableGroup, deviation: Deviation) -> TableDocument:
    table = published_table(group.results, deviation)
    notes = published_notes(table, group.results)
    grid = published_grid(table)
    title = f"Published and measured: {group.title}"
    return TableDocument("published", title, grid, table, _warnings(group), notes, index=False)


def _warnings(group: ComparableGroup) -> list[str]:
    return [line for line in (group.reason, *group.notes) if line]
