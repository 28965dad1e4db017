"""Write the tables of a set of runs to a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from clbench.core.files import write_atomic
from clbench.core.result import RunResult
from clbench.core.task import Setting
from clbench.report.grid import Grid, matrix_grid, per_task_grid, summary_grid
from clbench.report.groups import ComparableGroup, comparable_groups, file_name, method_runs
from clbench.report.matrix_csv import format_matrix_csv
from clbench.report.render import to_latex, to_markdown
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
_DELTA_NOTE = "Δ is the difference to the model before training."


def write_report(results: Iterable[RunResult], out: Path) -> list[Path]:
    """Write summary, per-task tables and matrices as Markdown, CSV and LaTeX.

    Runs that may not be compared get a folder each, and a common ``summary.md`` that says why.
    The same results give the same bytes, whatever their order. Files of earlier reports that
    are not written again stay where they are.

    Args:
        results: runs of any benchmarks.
        out: folder, made if missing.

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
        files |= {folder + name: text for name, text in _group_files(group).items()}
    if len(groups) > 1:
        files["summary.md"] = "\n".join(_summary_markdown(group) for group in groups)
    for name, text in files.items():
        write_atomic(out / name, text)
    return [out / name for name in files]


def _group_files(group: ComparableGroup) -> dict[str, str]:
    results = group.results
    summary = summary_table(results)
    per_task = per_task_grid(per_task_table(results))
    files = {
        "summary.md": _summary_markdown(group),
        "summary.csv": _csv(summary, index=True),
        "summary.tex": _latex(group, summary_grid(summary, group.setting)),
        "per-task.md": f"{_markdown(group, per_task)}\n{_PER_TASK_NOTE}\n",
        "per-task.csv": _csv(per_task_values(results), index=False),
        "per-task.tex": _latex(group, per_task),
    }
    for row in method_runs(results):
        for result in row.results:
            stem = f"matrices/{file_name(row.slug)}-seed{result.seed}"
            heading = f"{row.label}, seed {result.seed}"
            files[f"{stem}.md"] = _matrix_markdown(heading, result)
            files[f"{stem}.csv"] = format_matrix_csv(result.matrix)
    return files


def _summary_markdown(group: ComparableGroup) -> str:
    grid = summary_grid(summary_table(group.results), group.setting)
    notes = [_NOTE]
    if group.setting is Setting.CLASS_INCREMENTAL:
        notes.append(_CLASS_INCREMENTAL_NOTE)
    if any(title.startswith("Δ") for title in grid.header):
        notes.append(_DELTA_NOTE)
    return f"{_markdown(group, grid)}\n{' '.join(notes)}\n"


def _markdown(group: ComparableGroup, grid: Grid) -> str:
    reason = f"{group.reason}\n\n" if group.reason else ""
    return f"## {group.title}\n\n{reason}{to_markdown(grid)}"


def _latex(group: ComparableGroup, grid: Grid) -> str:
    comments = [group.title, group.reason, r"needs \usepackage{booktabs}"]
    return "".join(f"% {line}\n" for line in comments if line) + to_latex(grid)


def _matrix_markdown(heading: str, result: RunResult) -> str:
    images = ", ".join(
        f"{task} {count}"
        for task, count in zip(result.benchmark.tasks, result.accuracy.counts, strict=True)
    )
    table = to_markdown(matrix_grid(matrix_table(result)))
    return f"## {heading}\n\n{table}\nAccuracy in percent. Test images: {images}.\n"


def _csv(frame: pd.DataFrame, index: bool) -> str:
    # Differences of equal numbers leave traces around 1e-17; adding zero turns -0.0 into 0.0.
    numbers = frame.select_dtypes("float")
    tidy = frame.assign(**{str(key): numbers[key].round(12) + 0.0 for key in numbers})
    return tidy.to_csv(index=index, lineterminator="\n", float_format="%.10g")
