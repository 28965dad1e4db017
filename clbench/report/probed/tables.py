"""Tables of what probes measured: after the last task by method, and row by row of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from clbench.core.results.matrix import ZERO_SHOT
from clbench.core.results.result import ProbeRecord, RunResult
from clbench.report.formats.cells import Cell, Grid
from clbench.report.tables.documents import TableDocument
from clbench.report.tables.frames import REFERENCE_LABEL
from clbench.report.tables.groups import ComparableGroup, file_name, method_runs

SECONDS = "seconds"
NOTE = (
    "After the last task, mean ± sample standard deviation over n seeds (no spread for one seed). "
    "The last column is the time that the probe took for a row."
)


def probes_of(results: Sequence[RunResult]) -> list[str]:
    """Names of the probes that any of the runs has numbers of, in order."""
    return sorted({name for result in results for name in result.probes})


def measures_of(results: Sequence[RunResult], probe: str) -> list[str]:
    """What a probe measured, without details, in the order of the files."""
    records = (result.probes[probe] for result in results if probe in result.probes)
    return list(dict.fromkeys(key for record in records for key in record.main))


def probe_table(results: Sequence[RunResult], probe: str) -> pd.DataFrame:
    """What a probe found after the last task, by method, below what it found before training.

    Args:
        results: comparable runs.
        probe: its name.

    Returns:
        Index: labels of rows. Columns: `n` (seeds with a number), each measure with its sample
        standard deviation ``<measure>_std`` (NaN for one seed), and `seconds` per row.
    """
    measures = measures_of(results, probe)
    rows: dict[str, dict[str, float]] = {}
    for runs in method_runs(results):
        known = [result for result in runs.results if probe in result.probes]
        if not known:
            continue
        if REFERENCE_LABEL not in rows:
            rows[REFERENCE_LABEL] = _row(known[:1], probe, measures, first=True)
        rows[runs.label] = _row(known, probe, measures)
    spread = [name for key in measures for name in (key, f"{key}_std")]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["n", *spread, SECONDS])
    frame.index.name = "method"
    return frame


def probe_grid(table: pd.DataFrame) -> Grid:
    """Print `probe_table`; nothing is ranked, since more is not always better."""
    measures = [key for key in table.columns[1:-1] if not key.endswith("_std")]
    rows = tuple(
        (
            Cell(str(label)),
            Cell(f"{row['n']:.0f}"),
            *(Cell(_shown(row[key], row[f"{key}_std"])) for key in measures),
            Cell(_shown(row[SECONDS])),
        )
        for label, row in table.iterrows()
    )
    header = ("Method", "n", *measures, "s per row")
    return Grid(header, rows, (False, *[True] * (len(header) - 1)))


def probe_documents(group: ComparableGroup) -> list[TableDocument]:
    """A table per probe of comparable runs."""
    documents = []
    for name in probes_of(group.results):
        table = probe_table(group.results, name)
        title, stem = f"Probe {name}: {group.title}", file_name(f"probe-{name}")
        documents.append(TableDocument(stem, title, probe_grid(table), table, notes=[NOTE]))
    return documents


def rows_grid(result: RunResult, probe: str) -> Grid:
    """What a probe found at every row of one run."""
    record = result.probes[probe]
    names = (ZERO_SHOT, *result.benchmark.tasks)
    rows = tuple(
        (
            Cell(name),
            *(Cell(_shown(row[t])) for row in record.main.values()),
            Cell(_shown(record.seconds[t])),
        )
        for t, name in enumerate(names)
        if record.seconds[t] is not None
    )
    header = (f"{probe}, after", *record.main, "s")
    return Grid(header, rows, (False, *[True] * (len(header) - 1)))


def _row(
    results: Sequence[RunResult], probe: str, measures: Sequence[str], *, first: bool = False
) -> dict[str, float]:
    records = [result.probes[probe] for result in results]
    found = {key: [_at(record, key, first) for record in records] for key in measures}
    values: dict[str, float] = {"n": len(records)}
    for key, numbers in found.items():
        known = [number for number in numbers if number is not None]
        values[key] = float(np.mean(known)) if known else math.nan
        values[f"{key}_std"] = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
    seconds = [s for record in records for s in record.seconds if s is not None]
    values[SECONDS] = float(np.mean(seconds)) if seconds else math.nan
    return values


def _at(record: ProbeRecord, key: str, first: bool) -> float | None:
    """A number before training, or after the last task that the probe saw."""
    row = record.values.get(key)
    if row is None:
        return None
    if first:
        return row[0]
    seen = [t for t, seconds in enumerate(record.seconds) if seconds is not None]
    return row[seen[-1]] if seen and seen[-1] else None


def _shown(value: float | None, std: float = math.nan) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4g}" if math.isnan(std) else f"{value:.4g} ± {std:.2g}"
