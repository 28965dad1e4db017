"""Reading and writing accuracy matrices as CSV files.

```
after,Aircraft,Caltech101
zero-shot,24.3,88.4
Aircraft,51.2,87.9
Caltech101,48.0,96.1
```
The first column names the task just learned; the others, one per task, hold the accuracy on it.
Rows come in the order of the columns, which is the order of training; the last ones may be
missing. The row ``zero-shot`` is optional. An empty cell is a missing value. A file is in percent
if any accuracy is above 1.5, else in fractions.

A row ``images`` before all others is read, too: the test images per task. It is not written, since
it is no accuracy: ``pandas.read_csv(path, index_col="after")`` is `AccuracyMatrix.to_frame`.
"""

from __future__ import annotations

import csv
import io
import math
from itertools import dropwhile
from pathlib import Path

import numpy as np

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import round_significant, write_atomic
from clbench.core.foreign.names import from_cell, to_cell
from clbench.core.results.matrix import ZERO_SHOT, AccuracyMatrix
from clbench.core.task import Setting

IMAGES = "images"
COMMENT = "#"
"""Begins lines before the header that say what the file is (see `read_foreign`)."""
PERCENT_ABOVE = 1.5
"""Accuracies above this make a file one in percent."""
DIGITS = 12
"""Of the largest number of test images."""


def read_matrix_csv(path: Path | str, setting: Setting = Setting.TASK_GIVEN) -> AccuracyMatrix:
    """Read an accuracy matrix.

    Args:
        path: a file of the form described at the top of this module.
        setting: the label space the accuracies were measured in; the file does not say.

    Raises:
        ClbenchError: the file is missing or not such a matrix; names the row and column.
    """
    lines = _read_lines(Path(path))
    try:
        return _parse(lines, setting)
    except ClbenchError as error:
        raise ClbenchError(f"{path}: {error}") from None


def write_matrix_csv(matrix: AccuracyMatrix, path: Path | str) -> None:
    """Write an accuracy matrix in fractions; `read_matrix_csv` gives it back, but for the counts.

    Raises:
        ClbenchError: the file cannot be written.
    """
    write_atomic(path, format_matrix_csv(matrix))


def format_matrix_csv(matrix: AccuracyMatrix) -> str:
    """The text of a matrix file, in fractions; rows after the last known one are left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["after", *map(to_cell, matrix.tasks)])
    known = [t for t, row in enumerate(matrix.values) if not np.isnan(row).all()]
    for t, name in enumerate((ZERO_SHOT, *matrix.tasks)):
        if t in known or 0 < t <= max(known, default=0):
            row = matrix.values[t].tolist()
            writer.writerow(
                [to_cell(name), *("" if math.isnan(v) else round_significant(v) for v in row)]
            )
    return text.getvalue()


def _read_lines(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[from_cell(cell.strip()) for cell in row] for row in csv.reader(file)]
    except FileNotFoundError:
        raise ClbenchError(f"there is no matrix file {path}") from None
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ClbenchError(f"{path} is not a CSV text file: {error}") from error
    filled = [row for row in rows if any(row)]
    return [*dropwhile(lambda row: row[0].startswith(COMMENT), filled)]


def _parse(lines: list[list[str]], setting: Setting) -> AccuracyMatrix:
    if not lines:
        raise ClbenchError("the file is empty")
    tasks = _parse_header(lines[0])
    for row in lines[1:]:
        if len(row) != len(tasks) + 1:
            raise ClbenchError(f"row {row[0]!r} has {len(row)} cells, the header {len(tasks) + 1}")
    body = list(lines[1:])
    counts = _parse_counts(body.pop(0), tasks) if body and _is(body[0], IMAGES) else None
    has_zero_shot = bool(body) and _is(body[0], ZERO_SHOT)
    if not body:
        raise ClbenchError("there is no row of accuracies")
    _check_row_names([row[0] for row in body[has_zero_shot:]], tasks)

    numbers = [[_number(cell, row[0], task) for task, cell in _cells(row, tasks)] for row in body]
    scale = 100.0 if any(v > PERCENT_ABOVE for row in numbers for v in row) else 1.0
    missing = [math.nan] * len(tasks)
    rows = [] if has_zero_shot else [missing]
    for row, values in zip(body, numbers, strict=True):
        rows.append(_fractions(values, scale, row[0], tasks))
    rows += [missing] * (len(tasks) + 1 - len(rows))
    return AccuracyMatrix.from_lists(tasks, rows, counts, setting)


def _parse_header(header: list[str]) -> list[str]:
    tasks = header[1:]
    if not tasks:
        raise ClbenchError("the header names no task (columns are separated by commas)")
    for i, task in enumerate(tasks, start=2):
        if not task:
            raise ClbenchError(f"column {i} has no name")
        if task in header[1 : i - 1]:
            raise ClbenchError(f"task {task!r} has two columns")
        if task.lower() in (IMAGES, ZERO_SHOT):
            raise ClbenchError(f"a task cannot be called {task!r}: that is the name of a row")
    return tasks


def _check_row_names(names: list[str], tasks: list[str]) -> None:
    for i, name in enumerate(names):
        if name not in tasks:
            raise unknown_name("row", name, [ZERO_SHOT, IMAGES, *tasks])
        if name in names[:i]:
            raise ClbenchError(f"task {name!r} has two rows")
        if name != tasks[i]:
            raise ClbenchError(
                f"row {name!r} stands where {tasks[i]!r} is due: rows and columns must both be "
                "in the order of training"
            )


def _parse_counts(row: list[str], tasks: list[str]) -> list[int]:
    for task, cell in _cells(row, tasks):
        if not (cell.isascii() and cell.isdigit() and len(cell) <= DIGITS and int(cell) > 0):
            raise ClbenchError(f"row {row[0]!r}, column {task!r}: {cell!r} is no number of images")
    return [int(cell) for cell in row[1:]]


def _number(cell: str, row: str, task: str) -> float:
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " (leave missing cells empty)" if cell.lower() in ("nan", "na", "-", "null") else ""
        raise ClbenchError(f"row {row!r}, column {task!r}: {cell!r} is not a number{hint}")
    return value


def _fractions(values: list[float], scale: float, row: str, tasks: list[str]) -> list[float]:
    for task, value in zip(tasks, values, strict=True):
        if value < 0 or value > scale:
            unit = "percent" if scale > 1 else "fraction"
            raise ClbenchError(
                f"row {row!r}, column {task!r}: {value:g} is not between 0 and {scale:g} "
                f"(the file is read as {unit})"
            )
    return [value / scale for value in values]


def _cells(row: list[str], tasks: list[str]) -> list[tuple[str, str]]:
    return list(zip(tasks, row[1:], strict=True))


def _is(row: list[str], name: str) -> bool:
    return row[0].lower() == name
