"""Whether a run is what it claims to be: its files agree, and its checkpoint gives its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from clbench.core.correctness import CorrectRow, disagreement, read_rows
from clbench.core.errors import ClbenchError
from clbench.core.result import FILE_NAME, RunResult
from clbench.core.settings import RunSettings
from clbench.core.tracker import LOSS_FILE
from clbench.core.yaml_text import load_yaml
from clbench.report.matrix_csv import read_matrix_csv

CSV_TOLERANCE = 1e-9
"""The matrix file keeps ten significant digits."""
OTHER_MACHINE = 0.005
"""Share of test images that may be answered differently on other hardware or software."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        what: the thing checked.
        text: what was found.
        sound: whether that is as it should be.
    """

    what: str
    text: str
    sound: bool = True


def verify(path: Path, *, evaluate: bool = False) -> list[Finding]:
    """Check a run directory or a collected result file.

    Args:
        path: run directory or result file.
        evaluate: also test the final checkpoint anew.

    Raises:
        ClbenchError: there is no result, or `evaluate` lacks a checkpoint, weights or data.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.exists():
        raise ClbenchError(f"there is no result file {file}")
    findings: list[Finding] = []
    try:
        result = RunResult.load(file)
    except ClbenchError as error:
        return [Finding("result", str(error), False)]
    sealed = "sealed by its hash" if result.schema_version > 1 else "older: has no hash"
    tasks = f"{result.matrix.learned} of {len(result.matrix.tasks)} tasks"
    findings.append(Finding("result", f"{result.status}, {tasks}, summary recomputed, {sealed}"))
    checks: list[Callable[[], Iterator[Finding]]] = [lambda: _bits(file, result)]
    if file.name == FILE_NAME:
        folder = file.parent
        checks += [
            lambda: _matrix_file(folder, result),
            lambda: _settings(folder, result),
            lambda: _losses(folder, result),
            lambda: _checkpoint(folder, result),
        ]
        if evaluate:
            checks.append(lambda: _evaluate(folder, result))
    for check in checks:
        try:
            findings.extend(check())
        except ClbenchError as error:
            findings.append(Finding("file", str(error), False))
    return findings


def require_sound(file: Path) -> RunResult:
    """Load a result and refuse it where it contradicts its per-image record.

    Raises:
        ClbenchError: the result or the record is damaged, edited, or they disagree.
    """
    result = RunResult.load(file)
    for finding in _bits(file, result):
        if not finding.sound:
            raise ClbenchError(f"{file}: {finding.text}")
    return result


def _bits(file: Path, result: RunResult) -> Iterator[Finding]:
    rows = _counted_rows(file, result)
    if not rows:
        yield Finding("images", "no per-image record: written by an older version, or not kept")
        return
    problem = disagreement(rows, result.matrix)
    total = sum(len(bits) for row in rows.values() for bits in row.values())
    yield Finding("images", problem or f"{total} answers agree with every cell", problem is None)


def _counted_rows(file: Path, result: RunResult) -> dict[int, CorrectRow]:
    """The rows that the result counts; one more may be on disk if the run stopped in between."""
    return {t: row for t, row in read_rows(file).items() if t <= result.matrix.learned}


def _matrix_file(folder: Path, result: RunResult) -> Iterator[Finding]:
    path = folder / "matrix.csv"
    if not path.exists():
        yield Finding("matrix.csv", "missing", False)
        return
    matrix = read_matrix_csv(path, result.matrix.setting)
    same = matrix.tasks == result.matrix.tasks and np.allclose(
        matrix.values, result.matrix.values, rtol=0, atol=CSV_TOLERANCE, equal_nan=True
    )
    yield Finding("matrix.csv", "agrees" if same else "differs from the result", same)


def _settings(folder: Path, result: RunResult) -> Iterator[Finding]:
    settings = _configuration(result)
    same = settings.fingerprint() == result.config_hash
    text = f"hash {result.config_hash}" if same else "its hash is not that of the result"
    yield Finding("configuration", text, same)
    named = folder.name == f"seed{result.seed}-{result.config_hash}"
    yield Finding("directory", folder.name if named else f"{folder.name} is another's name", named)
    path = folder / "config.yaml"
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
        same = RunSettings.model_validate(content).fingerprint() == result.config_hash
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        same = False
    yield Finding("config.yaml", "agrees" if same else "missing or differs from the result", same)


def _configuration(result: RunResult) -> RunSettings:
    """The settings in a result.

    Raises:
        ClbenchError: this version does not know them.
    """
    try:
        return RunSettings.model_validate(result.config)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ClbenchError(
            f"this version of clbench does not know the configuration ({place}): use the one that "
            "made the run"
        ) from error


def _losses(folder: Path, result: RunResult) -> Iterator[Finding]:
    path = folder / LOSS_FILE
    if not path.exists():
        sound = result.cost.steps == 0
        yield Finding(LOSS_FILE, "none, as nothing was trained" if sound else "missing", sound)
        return
    train = _configuration(result).train
    last: dict[int, int] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            last[record["task"]] = record["step"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        yield Finding(LOSS_FILE, f"damaged: {error}", False)
        return
    names = result.benchmark.tasks
    learned = range(1, result.matrix.learned + 1)
    short = [names[t - 1] for t in learned if last.get(t) != train.steps_for(names[t - 1])]
    total = sum(last.get(t, 0) for t in learned)
    if short:
        yield Finding(LOSS_FILE, f"does not reach the last step of {short[0]}", False)
    elif total != result.cost.steps:
        yield Finding(LOSS_FILE, f"{total} steps, the result has {result.cost.steps}", False)
    else:
        yield Finding(LOSS_FILE, f"{total} steps")


def _checkpoint(folder: Path, result: RunResult) -> Iterator[Finding]:
    from clbench.engine.checkpoints import CheckpointStore, DamagedCheckpointError, Position

    store, position = CheckpointStore(folder), Position(result.matrix.learned)
    if position not in store.positions():
        finished = result.status != "partial"
        yield Finding("checkpoint", f"none after task {position.learned}", not finished)
        return
    try:
        store.load(position)
    except DamagedCheckpointError as error:
        yield Finding("checkpoint", str(error), False)
    else:
        yield Finding("checkpoint", f"both hashes agree, after task {position.learned}")


def _evaluate(folder: Path, result: RunResult) -> Iterator[Finding]:
    """Test the checkpoint of the last row anew and compare image by image."""
    from clbench import api

    before = _counted_rows(folder / FILE_NAME, result).get(result.matrix.learned, {})
    again, changed = api.evaluate_again(folder, result)
    if not before:
        cells = dict(
            zip(result.matrix.tasks, result.matrix.values[result.matrix.learned], strict=True)
        )
        wrong = [name for name, bits in again.items() if bits.mean() != cells[name]]
        text = f"other accuracy on {wrong[0]}" if wrong else "the same accuracies"
        yield Finding("evaluation", text, not wrong)
        return
    total = sum(map(len, again.values()))
    other = sum(int(np.sum(bits != before[name])) for name, bits in again.items())
    allowed = OTHER_MACHINE * total if changed else 0
    where = f" (other {', '.join(changed)} than in the run)" if changed else ""
    yield Finding(
        "evaluation", f"{other} of {total} answers of the last row differ{where}", other <= allowed
    )


def same_numbers(first: RunResult, second: RunResult) -> list[str]:
    """Where two results of the same settings differ; empty if nowhere.

    Returns:
        One line per difference: weights, data, steps, accuracies.
    """
    a, b = first.matrix, second.matrix
    if a.tasks != b.tasks:
        return [f"tasks: {', '.join(a.tasks)} and {', '.join(b.tasks)}"]
    both: list[tuple[str, Any, Any]] = [
        ("the backbone's weights", first.backbone.fingerprint, second.backbone.fingerprint),
        ("the images", first.data.splits, second.data.splits),
        ("the numbers of steps", first.cost.steps, second.cost.steps),
    ]
    lines = [f"{what} differ" for what, one, other in both if one != other]
    different = ~((a.values == b.values) | (np.isnan(a.values) & np.isnan(b.values)))
    if different.any():
        largest = np.nanmax(np.abs(a.values - b.values)[different])
        lines.append(
            f"{int(different.sum())} of {different.size} accuracies differ, "
            f"by up to {100 * largest:.2f} percentage points"
        )
    return lines
