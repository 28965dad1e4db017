"""Losses as a CSV file for spreadsheets: ``metrics.csv`` beside ``metrics.jsonl``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.foreign.names import to_cell
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import stages


class CsvTracker:
    """Writes ``metrics.csv`` after every task, from the losses that the run directory keeps."""

    name = "csv"

    def __init__(self) -> None:
        self._folder = Path()

    def begin(self, result: RunResult, folder: Path) -> None:
        """Write the earlier losses of a resumed run."""
        self._folder = folder
        self.row(result)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing: ``metrics.jsonl`` holds the live losses."""

    def row(self, result: RunResult) -> None:
        """Write all finished tasks."""
        write_atomic(self._folder / "metrics.csv", losses_csv(result, self._folder))

    def end(self, finished: bool) -> None:
        """Do nothing: everything is written."""


def losses_csv(result: RunResult, folder: Path) -> str:
    """One line per loss record: task, step over all tasks, and what was recorded.

    Columns that only some tasks have are empty elsewhere.
    """
    rows = [
        {"task": result.benchmark.tasks[stage.learned - 1], "step": step, **values}
        for stage in stages(result, folder)
        for step, values in stage.losses
    ]
    columns = list(dict.fromkeys(["task", "step", *(key for row in rows for key in row)]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(to_cell, columns))
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        table.writerow(to_cell(cell) if isinstance(cell, str) else cell for cell in cells)
    return text.getvalue()
