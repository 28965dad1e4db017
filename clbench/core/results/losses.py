"""Whether the losses that a run kept are those of a run with its settings, number by number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import Finding
from clbench.core.results.tracker import LOSS_FILE
from clbench.core.settings import TrainSettings
from clbench.core.training import rate_factor

INTERVAL: Final = 20
"""Steps between two records."""
TOLERANCE: Final = 1e-4
"""Relative; sums over the steps of an interval are taken in float32, term by term and in total."""

Record = Mapping[str, Any]


class Stretch(NamedTuple):
    """Steps under one schedule.

    Attributes:
        task: number of the task in which they are recorded, counted from one.
        name: of what is trained.
        steps: how many the settings say; None if they depend on the number of images.
        lr: peak learning rate.
    """

    task: int
    name: str
    steps: int | None
    lr: float


def check_losses(
    folder: Path,
    result: RunResult,
    train: TrainSettings,
    *,
    recipe_schedule: bool,
    at_once: bool = False,
) -> Iterator[Finding]:
    """Recompute what follows from the settings and from other numbers of the same record.

    That is which steps have a record, the learning rate at each of them, and the loss, which is
    the sum of its terms.

    Args:
        folder: the run directory.
        result: what it found.
        train: training settings of the run.
        recipe_schedule: whether the method leaves optimizer and schedule to the recipe; otherwise
            learning rates are not compared.
        at_once: whether the method trains once, on all tasks, in the first.
    """
    path = folder / LOSS_FILE
    if not path.exists():
        sound = result.cost.steps == 0
        yield Finding(LOSS_FILE, "none, as nothing was trained" if sound else "missing", sound)
        return
    try:
        records = _read(path)
        stretches = _stretches(result, train, at_once)
        problem = _problem(records, result, train, stretches, recipe_schedule)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        yield Finding(LOSS_FILE, f"damaged: {error}", False)
        return
    rates = "learning rates and " if recipe_schedule else ""
    text = f"{result.cost.steps} steps, {rates}sums of terms recomputed"
    yield Finding(LOSS_FILE, problem or text, problem is None)


def same_losses(first: Path, second: Path) -> list[str]:
    """Where the losses of two run directories differ; empty if nowhere, or if one has none.

    Returns:
        At most one line.

    Raises:
        ClbenchError: a file of losses is damaged.
    """
    files = [folder / LOSS_FILE for folder in (first, second)]
    if not all(path.is_file() for path in files):
        return []
    try:
        one, other = ([r for found in _read(path).values() for r in found] for path in files)
        if [[*record] for record in one] != [[*record] for record in other]:
            return ["the losses are not of the same steps and terms"]
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        if not pairs:
            return []
        largest = max(abs(a[name] - b[name]) for a, b in pairs for name in a)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ClbenchError(f"{LOSS_FILE} of {first} or {second} is damaged: {error}") from error
    return [f"{len(pairs)} of {len(one)} records of losses differ, by up to {largest:.3g}"]


def _read(path: Path) -> dict[int, list[Record]]:
    """The records of each task, by its place in the sequence, counted from one."""
    records: dict[int, list[Record]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records.setdefault(record["task"], []).append(record)
    return records


def _stretches(result: RunResult, train: TrainSettings, at_once: bool) -> list[Stretch]:
    """What was trained, under one schedule each."""
    names, known = result.benchmark.tasks, train.epochs is None
    if at_once:
        steps = sum(train.steps_for(name, 0) for name in names) if known else None
        return [Stretch(1, "all tasks", steps, train.joint_lr)][: result.matrix.learned]
    return [
        Stretch(i, name, train.steps_for(name, 0) if known else None, train.lr_for(name))
        for i, name in enumerate(names[: result.matrix.learned], 1)
    ]


def _problem(
    records: Mapping[int, Sequence[Record]],
    result: RunResult,
    train: TrainSettings,
    stretches: Sequence[Stretch],
    recipe_schedule: bool,
) -> str | None:
    total = 0
    for task, name, planned, peak in stretches:
        found = records.get(task, ())
        steps = found[-1]["step"] if found else 0
        if not found or planned not in (None, steps):
            return f"does not reach the last step of {name}"
        total += steps
        expected = [*range(INTERVAL, steps, INTERVAL), steps]
        if [record["step"] for record in found] != expected:
            return f"the records of {name} are not those of steps {_shown(expected)}"
        for record in found:
            if text := _wrong_number(record, train, peak if recipe_schedule else None, steps):
                return f"step {record['step']} of {name}: {text}"
    if total != result.cost.steps:
        return f"{total} steps, the result has {result.cost.steps}"
    return None


def _wrong_number(
    record: Record, train: TrainSettings, peak: float | None, steps: int
) -> str | None:
    terms = [v for key, v in record.items() if key not in ("task", "step", "lr", "loss")]
    loss = record.get("loss", 0.0)
    if not _close(loss, sum(terms), sum(map(abs, terms))):
        return f"the loss is {loss:.6g}, its terms add up to {sum(terms):.6g}"
    if peak is not None:
        warmup = train.warmup_steps(steps)
        rate = peak * rate_factor(record["step"], warmup, steps, train.schedule)
        if not _close(record["lr"], rate, peak * TOLERANCE):
            return f"the learning rate is {record['lr']:.6g}, the settings give {rate:.6g}"
    return None


def _close(found: float, expected: float, scale: float) -> bool:
    return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale)


def _shown(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps[:3])) + (", ..." if len(steps) > 3 else "")
