"""What runs will cost, from what finished runs of the same kind did cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from clbench.core.results.result import FILE_NAME
from clbench.core.settings import RunSettings, TrainSettings
from clbench.launch.cells import FINISHED, Cell, Resources

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """What a run will cost.

    Attributes:
        seconds: of training, tests and the method's work around training.
        memory: bytes at the peak: of the device, or of the process on the CPU.
        disk: bytes of the run directory.
        basis: what the numbers were measured on.
    """

    seconds: float
    memory: int | None
    disk: int
    basis: str


@dataclass(frozen=True)
class Measured:
    """A finished run, as far as its costs go."""

    result: Result
    disk: int


@dataclass(frozen=True)
class Forecast:
    """What is left to do of a grid, and what it will cost.

    Attributes:
        cells: all of the grid.
        states: for each, ``complete``, ``partial``, ``missing`` or what keeps it from being made.
        costs: for each, what it will cost; None where it is complete or nothing is known.
        resources: with which the rest would be made.
    """

    cells: list[Cell]
    states: list[str]
    costs: list[Estimate | None]
    resources: Resources


class Costs:
    """Costs of the finished runs in some folders.

    Args:
        folders: of runs.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._measured = [found for folder in folders for found in _measured(folder)]

    def of(self, settings: RunSettings) -> Estimate | None:
        """What a run will cost; None if nothing like it was ever made.

        The best basis counts: runs with the same settings and other seeds; else runs of the method
        on the same benchmark and backbone, scaled to the number of steps; else of other methods.
        """
        wanted = settings.model_dump(mode="json")
        digest = settings.fingerprint()
        near = [m for m in self._measured if _place(m.result["config"]) == _place(wanted)]
        same = [m for m in near if m.result["config_hash"] == digest]
        if same:
            return _mean(same, [_seconds(m.result) for m in same], "other seeds")
        method = settings.method.name
        own = [m for m in near if m.result["config"]["method"]["name"] == method]
        chosen = own or near
        if not chosen:
            return None
        scaled = [_scaled(m.result, settings.train) for m in chosen]
        return _mean(chosen, scaled, "other settings" if own else "other methods")


def total(estimates: Sequence[Estimate | None], jobs: int) -> tuple[float, int, int]:
    """Seconds for all with so many at a time, memory of those, and disk of all.

    What is not known counts as the mean of what is.
    """
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return 0.0, 0, 0
    scale = len(estimates) / len(known)
    at_once = min(jobs, len(estimates))
    seconds = scale * sum(e.seconds for e in known) / at_once
    memory = at_once * max(e.memory or 0 for e in known)
    return seconds, memory, round(scale * sum(e.disk for e in known))


def _measured(folder: Path) -> Iterable[Measured]:
    for path in sorted(folder.glob(f"*/*/seed*/{FILE_NAME}")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["status"] in FINISHED:
                _place(result["config"]), _seconds(result), _steps(result, TrainSettings())
                files = (file for file in path.parent.rglob("*") if file.is_file())
                yield Measured(result, sum(file.stat().st_size for file in files))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # not a result that tells anything


def _place(config: Result) -> tuple[Any, ...]:
    """What runs must agree on for one to tell about the other."""
    benchmark, backbone = config["benchmark"], config["backbone"]
    keys = ("precision", "quick", "devices")
    options = json.dumps(benchmark["options"], sort_keys=True)
    return (benchmark["name"], options, backbone["model"], *(config.get(key) for key in keys))


def _seconds(result: Result) -> float:
    cost = result["cost"]
    return float(sum(cost[f"{kind}_seconds"] for kind in ("training", "evaluation", "overhead")))


def _steps(result: Result, train: TrainSettings) -> float:
    """Images that training takes, up to a factor that all runs on a benchmark share."""
    tasks = result["benchmark"]["tasks"]
    if train.epochs is None:
        return sum(train.steps_for(task, 1) * train.batch_size for task in tasks)
    epochs = train.epochs
    return sum(
        epochs.get(t, epochs["default"]) if isinstance(epochs, dict) else epochs for t in tasks
    )


def _scaled(result: Result, train: TrainSettings) -> float:
    """Seconds of a run, with its training stretched to that of other settings."""
    before = TrainSettings.model_validate(result["config"]["train"])
    training: float = result["cost"]["training_seconds"]
    if (before.epochs is None) != (train.epochs is None):
        return _seconds(result)
    factor = _steps(result, train) / _steps(result, before)
    return _seconds(result) + (factor - 1) * training


def _mean(measured: Sequence[Measured], seconds: Sequence[float], what: str) -> Estimate:
    peaks = [m.result["cost"].get("peak_memory_bytes") for m in measured]
    known = [peak for peak in peaks if peak]
    return Estimate(
        seconds=mean(seconds),
        memory=max(known) if known else None,
        disk=round(mean(m.disk for m in measured)),
        basis=f"{what} ({len(measured)})",
    )
