"""Tables of results as data frames: unrounded fractions, as measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clbench.core.results.matrix import SUMMARY_KEYS, AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.tables.groups import (
    MethodRuns,
    beside_others,
    is_upper_bound,
    method_runs,
)

METHOD = "method"
REFERENCE = "reference"
UPPER_BOUND = "upper bound"
KINDS = (REFERENCE, UPPER_BOUND, METHOD)
"""In the order in which they stand in a table."""
STORAGE_FREE = "Storage-free"
STORING = "With storage"
REFERENCE_LABEL = "zero-shot (before training)"
COSTS = (
    "trainable",
    "added",
    "stored",
    "external",
    "training_seconds",
    "evaluation_seconds",
    "overhead_seconds",
    "peak_memory_bytes",
    "steps",
)


def summary_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """One row per method and set of hyper-parameters, averaged over seeds.

    The first row repeats what the model scored before any training, where runs measured it; then
    come upper bounds, methods that store nothing between tasks, then the others.

    Returns:
        Index: row labels. Columns: `kind` (``method``; or ``reference`` for rows that train
        nothing and ``upper bound`` for those that train on the data of all tasks, which take no
        part in rankings), `storage_free` (nothing is stored
        between tasks, no data come from elsewhere), `n` (seeds), each summary key with
        its sample standard deviation ``<key>_std`` (NaN for one seed), `transfer_delta` and
        `last_delta` (difference to zero-shot), `needs`, `reference_data` (where they came from),
        `shared` (whether other runs shared the machine while times were measured), and the mean of
        every entry of `COSTS`. What is unknown is NaN.

    Raises:
        ClbenchError: the runs are not comparable (see `comparable_groups`).
    """
    table = {row.label: _summary_row(row) for row in _rows(results)}
    frame = pd.DataFrame.from_dict(table, orient="index", columns=_summary_columns())
    frame.index.name = "method"
    baseline = [matrix.summary() for matrix in _zero_shot_matrices(results)]
    for key in ("transfer", "last"):
        frame[f"{key}_delta"] = frame[key] - _mean(summary[key] for summary in baseline)
    return frame


def per_task_table(
    results: Sequence[RunResult], labels: Sequence[str] | None = None
) -> pd.DataFrame:
    """Transfer, Avg and Last of every task, averaged over seeds, as papers print them.

    Args:
        results: comparable runs.
        labels: all rows of `summary_table` in the order they are to have; None leaves theirs.

    Returns:
        Index: (metric, method). Columns: `kind` and `n` as in `summary_table`, one per task,
        and `mean`, which is the metric of the whole run. Metrics are those of
        `AccuracyMatrix.per_task`.

    Raises:
        ClbenchError: the runs are not comparable.
    """
    tasks = list(results[0].benchmark.tasks)
    rows = _rows(results)
    if labels is not None:
        rows.sort(key=lambda row: labels.index(row.label))
    index, values = [], []
    for metric in rows[0].matrices[0].per_task():
        summary_key = "average" if metric == "incremental" else metric
        for row in rows:
            per_seed = np.stack([matrix.per_task()[metric] for matrix in row.matrices])
            whole = _mean(matrix.summary()[summary_key] for matrix in row.matrices)
            index.append((metric, row.label))
            values.append([row.kind, len(per_seed), *per_seed.mean(axis=0), whole])
    return pd.DataFrame(
        values,
        index=pd.MultiIndex.from_tuples(index, names=["metric", "method"]),
        columns=["kind", "n", *tasks, "mean"],
    )


def per_task_values(results: Sequence[RunResult]) -> pd.DataFrame:
    """The numbers of `per_task_table` in long form, with their spread and sample counts.

    Returns:
        Columns: `metric`, `method`, `task`, `images` (test images), `n` (seeds), `mean`, `std`.
    """
    rows = [(row, [matrix.per_task() for matrix in row.matrices]) for row in _rows(results)]
    records = [
        {
            "metric": metric,
            "method": row.label,
            "task": task,
            "images": images,
            "n": len(seeds),
            "mean": _mean(values[metric][j] for values in seeds),
            "std": _std(values[metric][j] for values in seeds),
        }
        for metric in rows[0][1][0]
        for row, seeds in rows
        for j, (task, images) in enumerate(
            zip(results[0].benchmark.tasks, results[0].accuracy.counts, strict=True)
        )
    ]
    return pd.DataFrame.from_records(records)


@dataclass(frozen=True)
class _Row:
    """A row of a table; `runs` is None for what the model scored before training."""

    label: str
    kind: str
    matrices: Sequence[AccuracyMatrix]
    runs: MethodRuns | None = None

    @property
    def storage_free(self) -> bool:
        """Whether nothing is stored between tasks and no data come from elsewhere."""
        costs = [] if self.runs is None else self.runs.results
        return not any(r.footprint.stored or r.footprint.external or r.method.needs for r in costs)


def _rows(results: Sequence[RunResult]) -> list[_Row]:
    """All rows of a table, references first."""
    rows = []
    for runs in method_runs(results):
        matrices = [result.matrix for result in runs.results]
        rows.append(_Row(runs.label, _kind(runs), matrices, runs))
    zero_shot = _zero_shot_matrices(results)
    if zero_shot and all(row.kind != REFERENCE for row in rows):
        rows.insert(0, _Row(REFERENCE_LABEL, REFERENCE, zero_shot))
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), not row.storage_free))


def _kind(runs: MethodRuns) -> str:
    if all(map(_trains_nothing, runs.results)):
        return REFERENCE
    return UPPER_BOUND if is_upper_bound(runs.results[0]) else METHOD


def _summary_row(row: _Row) -> dict[str, object]:
    cells: dict[str, object] = {
        "kind": row.kind,
        "storage_free": row.storage_free,
        "n": len(row.matrices),
    }
    summaries = [matrix.summary() for matrix in row.matrices]
    for key in SUMMARY_KEYS:
        cells[key] = _mean(summary[key] for summary in summaries)
        cells[f"{key}_std"] = _std(summary[key] for summary in summaries)
    if row.runs is None:
        return cells
    costs = [r.footprint.model_dump() | r.cost.model_dump() for r in row.runs.results]
    cells["needs"] = " ".join(sorted({need for r in row.runs.results for need in r.method.needs}))
    used = {r.data.reference for r in row.runs.results if r.data.reference is not None}
    cells["reference_data"] = "; ".join(sorted(used)) or math.nan
    cells["shared"] = any(map(beside_others, row.runs.results))
    return cells | {key: _mean(cost[key] for cost in costs) for key in COSTS}


def _summary_columns() -> list[str]:
    metrics = [column for key in SUMMARY_KEYS for column in (key, f"{key}_std")]
    shares = ["transfer_delta", "last_delta", "needs", "reference_data", "shared"]
    return ["kind", "storage_free", "n", *metrics, *shares, *COSTS]


def _zero_shot_matrices(results: Sequence[RunResult]) -> list[AccuracyMatrix]:
    """One matrix per seed, of a method that leaves the model as it was before training."""
    found: dict[int, AccuracyMatrix] = {}
    for result in results:
        matrix = result.matrix
        defined = matrix.setting is not Setting.CLASS_INCREMENTAL
        if defined and result.seed not in found and not np.isnan(matrix.values[0]).any():
            values = np.tile(matrix.values[0], (len(matrix.tasks) + 1, 1))
            found[result.seed] = AccuracyMatrix(matrix.tasks, values, matrix.counts, matrix.setting)
    return list(found.values())


def _trains_nothing(result: RunResult) -> bool:
    """Whether a run kept the model as it was: nothing was trained, added or stored."""
    cost, values = result.footprint, result.matrix.values
    constant = (values == values[0]) | np.isnan(values)
    return not (cost.trainable or cost.added or cost.stored) and bool(constant.all())


def _mean(values: Iterable[float | None]) -> float:
    """Mean over seeds; unknown if any seed's value is."""
    numbers = [math.nan if value is None else float(value) for value in values]
    return float(np.mean(numbers)) if numbers else math.nan


def _std(values: Iterable[float | None]) -> float:
    """Sample standard deviation over seeds; unknown for one seed."""
    numbers = [math.nan if value is None else float(value) for value in values]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
