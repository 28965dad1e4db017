"""The human-readable files of a run directory, and collecting results for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clbench.core.files import write_atomic
from clbench.core.results.correctness import SUFFIX, encode_row, read_rows
from clbench.core.results.result import FILE_NAME, RunResult
from clbench.report.formats.render import to_markdown
from clbench.report.probed.tables import probes_of, rows_grid
from clbench.report.tables.frames import summary_table
from clbench.report.tables.grid import matrix_grid, summary_grid
from clbench.report.tables.groups import file_name
from clbench.report.tables.matrix_csv import write_matrix_csv


def publish(result: RunResult, folder: Path) -> None:
    """Write ``matrix.csv`` and ``table.md`` beside ``result.json``."""
    write_matrix_csv(result.matrix, folder / "matrix.csv")
    summary = to_markdown(summary_grid(summary_table([result]), result.benchmark.setting))
    matrix = to_markdown(matrix_grid(result.matrix.to_frame()))
    probes = [to_markdown(rows_grid(result, name)) for name in probes_of([result])]
    write_atomic(folder / "table.md", "\n".join([summary, matrix, *probes]))


def collected_name(method: str, seed: int, config_hash: str) -> str:
    """What the file of a collected result is called."""
    return f"{file_name(method)}-seed{seed}-{config_hash}.json"


def collect(runs: Sequence[tuple[Path, RunResult]], folder: Path) -> list[Path]:
    """Write every result as ``<method>-seed<k>-<hash>.json``, small enough to be committed.

    Which test images were correct, if known, is written beside it into a ``.bits`` file.

    Args:
        runs: results with the files they were read from.
        folder: created if missing.
    """
    paths = []
    for source, result in runs:
        path = folder / collected_name(result.method.name, result.seed, result.config_hash)
        result.save(path)
        rows = read_rows(source)
        if rows:
            content = b"".join(encode_row(learned, row) for learned, row in rows.items())
            write_atomic(path.with_suffix(SUFFIX), content)
        paths.append(path)
    return paths


def collect_run(run: Path, folder: Path) -> None:
    """Collect the result of a run directory (see `collect`)."""
    file = run / FILE_NAME
    collect([(file, RunResult.load(file))], folder)
