"""Tables of results as data frames: numbers as measured, fractions, nothing rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from clbench.core.matrix import SUMMARY_KEYS, AccuracyMatrix
from clbench.core.result import RunResult
from clbench.core.task import Setting
from clbench.report.groups import MethodRuns, method_runs

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

    The first row repeats what the model scored before any training, where runs measured it.

    Returns:
        Index: row labels. Columns: `kind` (``method``, or ``reference`` for rows that never
        change the model, which take no part in rankings), `n` (seeds), each summary key with
        its sample standard deviation ``<key>_std`` (NaN for one seed), `transfer_delta` and
        `last_delta` (difference to zero-shot), `needs`, and the mean of every entry of
        `COSTS`. What is unknown is NaN.

    Raises:
        ClbenchError: the runs may not be compared (see `comparable_groups`).
    """
    rows = method_runs(results)
    zero_shot = _zero_shot_matrices(results)
    table = {row.label: _summary_row(row) for row in rows}
    if zero_shot and not any(row["kind"] == "reference" for row in table.values()):
        reference = {"kind": "reference", "n": len(zero_shot), **_metric_columns(zero_shot)}
        table = {REFERENCE_LABEL: reference, **table}
    frame = pd.DataFrame.from_dict(table, orient="index", columns=_summary_columns())
    frame.index.name = "method"
    baseline = [matrix.summary() for matrix in zero_shot]
    for key in ("transfer", "last"):
        frame[f"{key}_delta"] = frame[key] - _mean(row[key] for row in baseline)
    return frame.sort_values("kind", key=lambda kind: kind != "reference", kind="stable")


def per_task_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """Transfer, Avg and Last of every task, averaged over seeds, as papers print them.

    Returns:
        Index: (metric, method). Columns: `n` (seeds), one per task, and `mean`, which is the
        metric of the whole run. Metrics are those of `AccuracyMatrix.per_task`.

    Raises:
        ClbenchError: the runs may not be compared.
    """
    long = per_task_values(results)
    tasks = list(results[0].benchmark.tasks)
    keys = pd.MultiIndex.from_frame(long[["metric", "method"]].drop_duplicates())
    wide = long.pivot(index=["metric", "method"], columns="task", values="mean")
    wide = wide.reindex(index=keys, columns=pd.Index(tasks))
    wide.insert(0, "n", long.groupby(["metric", "method"])["n"].first())
    wide["mean"] = _means_of_runs(results, keys)
    return wide


def per_task_values(results: Sequence[RunResult]) -> pd.DataFrame:
    """The numbers of `per_task_table` in long form, with their spread and sample counts.

    Returns:
        Columns: `metric`, `method`, `task`, `images` (test images), `n` (seeds), `mean`, `std`.
    """
    records = []
    for row in method_runs(results):
        per_seed = [result.matrix.per_task() for result in row.results]
        for metric in per_seed[0]:
            values = np.stack([numbers[metric] for numbers in per_seed])
            for j, task in enumerate(results[0].benchmark.tasks):
                records.append(
                    {
                        "metric": metric,
                        "method": row.label,
                        "task": task,
                        "images": results[0].accuracy.counts[j],
                        "n": len(per_seed),
                        "mean": _mean(values[:, j]),
                        "std": _std(values[:, j]),
                    }
                )
    metrics = list(dict.fromkeys(record["metric"] for record in records))
    return (
        pd.DataFrame(records)
        .sort_values("metric", key=lambda m: m.map(metrics.index), kind="stable")
        .reset_index(drop=True)
    )


def matrix_table(result: RunResult) -> pd.DataFrame:
    """The accuracy matrix of a run.

    Returns:
        Index: ``zero-shot`` and the tasks, in the order learned. Columns: the tasks.
    """
    tasks = list(result.benchmark.tasks)
    index = pd.Index(["zero-shot", *tasks], name="after")
    return pd.DataFrame(result.matrix.values, index=index, columns=tasks)


def _summary_row(row: MethodRuns) -> dict[str, object]:
    matrices = [result.matrix for result in row.results]
    costs = [
        {**result.footprint.model_dump(), **result.cost.model_dump()} for result in row.results
    ]
    return {
        "kind": "reference" if all(map(_never_changes, matrices)) else "method",
        "n": len(matrices),
        **_metric_columns(matrices),
        "needs": " ".join(sorted({need for r in row.results for need in r.method.needs})),
        **{key: _mean(cost[key] for cost in costs) for key in COSTS},
    }


def _summary_columns() -> list[str]:
    metrics = [column for key in SUMMARY_KEYS for column in (key, f"{key}_std")]
    return ["kind", "n", *metrics, "transfer_delta", "last_delta", "needs", *COSTS]


def _metric_columns(matrices: Sequence[AccuracyMatrix]) -> dict[str, float]:
    summaries = [matrix.summary() for matrix in matrices]
    columns: dict[str, float] = {}
    for key in SUMMARY_KEYS:
        values = [summary[key] for summary in summaries]
        columns[key] = _mean(values)
        columns[f"{key}_std"] = _std(values)
    return columns


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


def _never_changes(matrix: AccuracyMatrix) -> bool:
    return bool((matrix.values == matrix.values[0]).all())


def _means_of_runs(results: Sequence[RunResult], keys: Iterable[tuple[str, str]]) -> list[float]:
    """The metric of the whole run for each (metric, method)."""
    runs = {row.label: [r.matrix.summary() for r in row.results] for row in method_runs(results)}
    summary_key = {"incremental": "average"}
    return [
        _mean(summary[summary_key.get(metric, metric)] for summary in runs[label])
        for metric, label in keys
    ]


def _mean(values: Iterable[float | None]) -> float:
    """Mean over seeds; unknown if any seed's value is."""
    numbers = [math.nan if value is None else float(value) for value in values]
    return float(np.mean(numbers)) if numbers else math.nan


def _std(values: Iterable[float | None]) -> float:
    """Sample standard deviation over seeds; unknown for one seed."""
    numbers = [math.nan if value is None else float(value) for value in values]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
