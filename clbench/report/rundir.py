"""The readable files of a run directory, and the collection of results for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.result import RunResult
from clbench.report.grid import matrix_grid, summary_grid
from clbench.report.groups import file_name
from clbench.report.matrix_csv import write_matrix_csv
from clbench.report.render import to_markdown
from clbench.report.tables import matrix_table, summary_table


def publish(result: RunResult, folder: Path) -> None:
    """Write ``matrix.csv`` and ``table.md`` beside ``result.json``."""
    write_matrix_csv(result.matrix, folder / "matrix.csv")
    summary = to_markdown(summary_grid(summary_table([result]), result.benchmark.setting))
    matrix = to_markdown(matrix_grid(matrix_table(result)))
    write_atomic(folder / "table.md", f"{summary}\n{matrix}")


def collect(results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Write every result as ``<method>-seed<k>-<hash>.json``, small enough to be committed."""
    paths = []
    for result in results:
        name = file_name(result.method.name)
        path = folder / f"{name}-seed{result.seed}-{result.config_hash}.json"
        result.save(path)
        paths.append(path)
    return paths
