"""Many results: found in folders, without loading what trains models, and as one data frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clbench.core.errors import ClbenchError
from clbench.core.results.matrix import ZERO_SHOT
from clbench.core.results.result import ASIDE, RunResult
from clbench.core.results.soundness import require_sound
from clbench.naming import titled
from clbench.report.tables.groups import comparable_groups, method_runs

COLUMNS = (
    "path",
    "benchmark",
    "version",
    "order",
    "setting",
    "status",
    "backbone",
    "method",
    "label",
    "seed",
    "config",
    "step",
    "after",
    "task",
    "learned",
    "accuracy",
    "images",
)
"""What `results` returns."""


def results(path: Path | str | Sequence[Path | str]) -> pd.DataFrame:
    """The accuracies of all runs below a path, one row per run, task and step.

    Args:
        path: run directory, result file, folder of either, or several of these.

    Returns:
        `path` (run directory or result file); `benchmark`, `version`, `order`, `setting`, `status`
        (runs that differ in these are not to be compared), `backbone`; `method`, `label` (the
        method with the hyper-parameters in which its runs differ, as in tables), `seed`, `config`
        (hash of the settings); `step` (tasks learned, 0 is before training), `after` (the last of
        them, or ``zero-shot``), `task` (tested), `learned` (whether it was learned by then),
        `accuracy` (fraction, NaN where not measured) and `images` (test images).

    Raises:
        ClbenchError: nothing is there, or a result is damaged, was edited or contradicts another.
    """
    paths = [path] if isinstance(path, Path | str) else path
    found = find_results([Path(p) for p in paths])
    frame = pd.DataFrame.from_records([*_rows(found)], columns=list(COLUMNS))
    return frame.sort_values(["path", "step"], kind="stable", ignore_index=True)


def find_results(paths: Sequence[Path]) -> list[RunResult]:
    """Load every result under the paths: run directories, result files or folders of either.

    Raises:
        ClbenchError: a path does not exist or holds no result, or a result was edited, is damaged
            or contradicts its record of single images.
    """
    return [result for _, result in find_runs(paths)]


def find_runs(paths: Sequence[Path]) -> list[tuple[Path, RunResult]]:
    """As `find_results`, each result with the file it was read from."""
    files = result_files(paths)
    return list(zip(files, titled(map(require_sound, files)), strict=True))


def result_files(paths: Sequence[Path]) -> list[Path]:
    """All result files under the paths, each once.

    Raises:
        ClbenchError: a path does not exist or holds no result.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = _result_files(path)
        if not files:
            raise ClbenchError(f"no results in {path}: expected result.json files below it")
        found.update({file.resolve(): None for file in files})
    return list(found)


def _result_files(path: Path) -> list[Path]:
    if not path.exists():
        raise ClbenchError(f"{path} does not exist")
    if path.is_file():
        return [path]
    inside = [file for file in sorted(path.rglob("result.json")) if ASIDE not in file.parts]
    return inside or sorted(path.glob("*.json"))


def _rows(found: Sequence[RunResult]) -> Iterator[dict[str, Any]]:
    for group in comparable_groups(found):
        for row in method_runs(group.results):
            for result in row.results:
                yield from _cells(result, row.label)


def _cells(result: RunResult, label: str) -> Iterator[dict[str, Any]]:
    benchmark, tasks = result.benchmark, result.benchmark.tasks
    run = {
        "path": str(result.path),
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "order": benchmark.order,
        "setting": benchmark.setting.value,
        "status": result.status,
        "backbone": f"{result.backbone.model} ({result.backbone.weights})",
        "method": result.method.name,
        "label": label,
        "seed": result.seed,
        "config": result.config_hash,
    }
    for step, (after, accuracies) in enumerate(
        zip((ZERO_SHOT, *tasks), result.matrix.values.tolist(), strict=True)
    ):
        for j, (task, accuracy) in enumerate(zip(tasks, accuracies, strict=True)):
            cell = {"step": step, "after": after, "task": task, "learned": j < step}
            count = result.accuracy.counts[j]
            yield {**run, **cell, "accuracy": accuracy, "images": count}
