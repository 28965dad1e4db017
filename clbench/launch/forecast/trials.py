"""What a run will cost where nothing like it was ever made: from a smoke run of a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clbench import config
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.rundir.directory import run_path
from clbench.inputs import load_inputs
from clbench.launch.forecast.estimates import Estimate
from clbench.launch.plan import Planned
from clbench.launch.records import FOLDER


@dataclass(frozen=True)
class Sizes:
    """How much a benchmark makes a run do.

    Attributes:
        train: training images by task.
        test: test images of all tasks together.
    """

    train: dict[str, int]
    test: int

    @classmethod
    def of(cls, settings: RunSettings) -> Sizes:
        """Those of the benchmark that the settings name.

        Raises:
            ClbenchError: its data or the weights are missing.
        """
        _, sequence = load_inputs(settings)
        names = [task.name for task in sequence.benchmark.tasks]
        return cls(
            {name: len(sequence.train_set(t)) for t, name in enumerate(names)},
            sum(len(sequence.test_set(t)) for t in range(len(names))),
        )


def folder(runs_dir: Path) -> Path:
    """Where smoke runs are made."""
    return runs_dir / FOLDER / "trials"


def shortened(planned: Planned) -> Planned:
    """The smoke run that tells about a run."""
    settings, cls = planned
    return config.shortened(
        settings.model_copy(update={"quick": True, "seed": 0, "probes": ()})
    ), cls


def kinds(planned: Sequence[Planned]) -> list[Planned]:
    """Of runs that one smoke run tells about, the first."""
    return list({run_path(Path(), shortened(plan)[0]): plan for plan in reversed(planned)}.values())


def estimate(planned: Planned, runs_dir: Path, sizes: Sizes) -> Estimate | None:
    """What a run will cost, by its smoke run; None if that was not made.

    Training is stretched to the number of steps, tests to the number of images.
    """
    settings, path = planned[0], run_path(folder(runs_dir), shortened(planned)[0])
    if not (path / "result.json").exists():
        return None
    result = RunResult.load(path)
    cost, train = result.cost, settings.train
    steps = sum(train.steps_for(task, images) for task, images in sizes.train.items())
    seconds = cost.overhead_seconds
    seconds += cost.evaluation_seconds * sizes.test / sum(result.accuracy.counts)
    seconds += cost.training_seconds * steps / max(1, cost.steps)
    disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Estimate(seconds, cost.peak_memory_bytes, disk, f"a trial of {cost.steps} steps")
