"""The readable files of a run directory, and the collection of results for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.result import RunResult
from clbench.report.matrix_csv import write_matrix
from clbench.report.tables import matrix_markdown, summary_markdown


def publish(result: RunResult, folder: Path) -> None:
    """Write ``matrix.csv`` and ``table.md`` beside ``result.json``."""
    write_matrix(result.matrix, folder / "matrix.csv")
    text = f"{summary_markdown([result])}\n{matrix_markdown(result)}"
    write_atomic(folder / "table.md", text)


def collect(results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Write every result as ``<method>-seed<k>-<hash>.json``, small enough to be committed."""
    paths = []
    for result in results:
        name = result.method.name.rpartition(":")[2]
        path = folder / f"{name}-seed{result.seed}-{result.config_hash}.json"
        result.save(path)
        paths.append(path)
    return paths
