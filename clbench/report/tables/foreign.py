"""Accuracy matrices from elsewhere, with their names and sources, beside measured runs."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import write_atomic
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.task import Setting
from clbench.report.formats.cells import Cell, Grid
from clbench.report.tables.documents import TableDocument
from clbench.report.tables.frames import summary_table
from clbench.report.tables.grid import summary_grid
from clbench.report.tables.groups import ComparableGroup
from clbench.report.tables.matrix_csv import COMMENT, format_matrix_csv, read_matrix_csv

FOREIGN = "foreign"
STEM = "elsewhere"
ELSEWHERE = "From elsewhere"
KEYS = ("n", "transfer", "average", "last", "learned", "forgetting", "backward_transfer")
NOTE = (
    f"Rows under {ELSEWHERE!r} were not measured by clbench, which computed their metrics from the "
    "matrices: images, weights and protocol are what their sources say. They are not ranked."
)
_STATEMENT = re.compile(r"#\s*(\w+)\s*:\s+(.*\S)\s*")
_STATEMENTS = ("name", "source", "setting")


@dataclass(frozen=True)
class ForeignMatrix:
    """An accuracy matrix that somebody else measured.

    Attributes:
        name: of the method, for tables.
        source: where it comes from; empty if nobody said.
        matrix: the accuracies.
    """

    name: str
    source: str
    matrix: AccuracyMatrix


def read_foreign(path: Path | str) -> ForeignMatrix:
    """Read a matrix file that may say in its first lines what it is.

    ```
    # name: ZSCL
    # source: arXiv:2303.06628
    # setting: task-given
    after,Aircraft,Caltech101
    ...
    ```
    Each of these lines may be missing: the name is then the file's, the setting ``task-given``.
    Other lines that begin with ``#`` are comments.

    Raises:
        ClbenchError: the file is missing or not such a matrix.
    """
    path = Path(path)
    plain = read_matrix_csv(path)
    stated = _statements(path)
    try:
        setting = Setting(stated.get("setting", Setting.TASK_GIVEN))
    except ValueError:
        wrong = unknown_name("setting", stated["setting"], [s.value for s in Setting])
        raise ClbenchError(f"{path}: {wrong}") from None
    matrix = replace(plain, setting=setting)
    return ForeignMatrix(stated.get("name", path.stem), stated.get("source", ""), matrix)


def write_foreign(foreign: ForeignMatrix, path: Path) -> None:
    """Write a matrix file with its name, source and setting, as far as they say anything.

    Raises:
        ClbenchError: the file cannot be written.
    """
    setting = foreign.matrix.setting
    stated = {
        "name": "" if foreign.name == path.stem else foreign.name,
        "source": foreign.source,
        "setting": "" if setting is Setting.TASK_GIVEN else setting.value,
    }
    lines = [f"# {key}: {' '.join(value.split())}\n" for key, value in stated.items() if value]
    write_atomic(path, "".join(lines) + format_matrix_csv(foreign.matrix))


def foreign_tables(
    groups: Sequence[ComparableGroup], foreign: Sequence[ForeignMatrix]
) -> list[TableDocument]:
    """Tables of foreign matrices, each beside the runs with the same tasks in the same order.

    Matrices whose tasks no run has are put into a table of their own.
    """
    found: dict[tuple[tuple[str, ...], Setting], list[ForeignMatrix]] = {}
    for one in foreign:
        found.setdefault((one.matrix.tasks, one.matrix.setting), []).append(one)
    parts: list[tuple[ComparableGroup | None, list[ForeignMatrix]]] = []
    for (tasks, setting), matrices in found.items():
        same = [g for g in groups if (g.results[0].benchmark.tasks, g.setting) == (tasks, setting)]
        parts += [(group, matrices) for group in same] or [(None, matrices)]
    return [
        _document(group, matrices, STEM if len(parts) == 1 else f"{STEM}-{number}")
        for number, (group, matrices) in enumerate(parts, start=1)
    ]


def _document(
    group: ComparableGroup | None, foreign: Sequence[ForeignMatrix], stem: str
) -> TableDocument:
    setting = foreign[0].matrix.setting
    measured = [] if group is None else _measured(group)
    rows = [*measured, *(_row(one) for one in foreign)]
    table = pd.DataFrame(rows).set_index("method").astype(object)
    grid = _grid(table, setting, len(measured))
    count = len(foreign[0].matrix.tasks)
    title = f"{count} tasks, {setting}" if group is None else group.title
    warnings = [] if group is None else [line for line in (group.reason, *group.notes) if line]
    numbers = table.drop(columns=["storage_free"]).infer_objects()
    heading = f"{ELSEWHERE} and measured: {title}" if measured else f"{ELSEWHERE}: {title}"
    return TableDocument(stem, heading, grid, numbers, warnings, [NOTE])


def _measured(group: ComparableGroup) -> list[dict[str, Any]]:
    table = summary_table(group.results)
    spreads = [f"{key}_std" for key in KEYS[1:]]
    kept = table[["kind", "storage_free", *KEYS, *spreads]].reset_index()
    return [
        {**dict(zip(map(str, kept), row, strict=True)), "source": ""} for row in kept.to_numpy()
    ]


def _row(foreign: ForeignMatrix) -> dict[str, Any]:
    summary = foreign.matrix.summary()
    values = {key: math.nan if summary[key] is None else summary[key] for key in KEYS[1:]}
    return {
        "method": foreign.name,
        "kind": FOREIGN,
        "storage_free": False,
        "n": math.nan,
        **values,
        "source": foreign.source,
    }


def _grid(table: pd.DataFrame, setting: Setting, measured: int) -> Grid:
    """The summary of all rows, with sources; foreign ones are a block of their own."""
    grid = summary_grid(table, setting, KEYS)
    sources = [Cell("") if kind != FOREIGN else Cell(s) for kind, s in _kinds(table)]
    return replace(
        grid,
        header=(*grid.header, "Source"),
        rows=tuple((*row, source) for row, source in zip(grid.rows, sources, strict=True)),
        numeric=(*grid.numeric, False),
        rules=(grid.rules | {measured}) - {0, len(table)},
        sections={**grid.sections, measured: ELSEWHERE},
    )


def _kinds(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["kind"], table["source"], strict=True))


def _statements(path: Path) -> dict[str, str]:
    """What the comments at the top of a file state."""
    stated: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith(COMMENT):
            break
        if (match := _STATEMENT.fullmatch(line.rstrip(","))) is None:
            continue
        key = match[1].lower()
        if key not in _STATEMENTS and difflib.get_close_matches(key, _STATEMENTS, cutoff=0.7):
            raise ClbenchError(f"{path}: {unknown_name('statement', key, _STATEMENTS)}")
        stated[key] = match[2]
    return stated
