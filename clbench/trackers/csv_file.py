"""Numbers as CSV files for spreadsheets: losses in ``metrics.csv``, probes in ``probes.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.foreign.names import to_cell
from clbench.core.results.matrix import ZERO_SHOT
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import stages


class CsvTracker:
    """Writes ``metrics.csv`` after every task, from the losses that the run directory keeps.

    Runs with probes get ``probes.csv``, from their result.
    """

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
        if result.probes:
            write_atomic(self._folder / "probes.csv", probes_csv(result))

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
    return _table(columns, ([row.get(column, "") for column in columns] for row in rows))


def probes_csv(result: RunResult) -> str:
    """One line per number of a probe, details included: after which task, probe, measure, value."""
    names = (ZERO_SHOT, *result.benchmark.tasks)
    rows = (
        [name, probe, measure, row[t]]
        for t, name in enumerate(names)
        for probe, record in sorted(result.probes.items())
        for measure, row in record.values.items()
        if row[t] is not None
    )
    return _table(["after", "probe", "measure", "value"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        table.writerow(to_cell(cell) if isinstance(cell, str) else cell for cell in row)
    return text.getvalue()
