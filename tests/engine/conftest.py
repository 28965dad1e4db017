"""A short task sequence and a runner over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clbench.clip.model import CLIP
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import Tracker
from clbench.core.settings import RunSettings
from clbench.core.task import Benchmark, Setting
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.sequence import TaskSequence
from clbench.engine import testing
from clbench.engine.probing import Probes
from clbench.engine.process.progress import QuietReporter, Reporter
from clbench.engine.rundir.directory import RunDirectory, run_path
from clbench.engine.rundir.zeroshot import ZeroShotCache
from clbench.engine.runner import SequenceRunner

Run = Callable[..., RunResult]


@pytest.fixture
def make_sequence(tiny_task_data: Callable[..., Any]) -> Callable[..., TaskSequence]:
    """Builds a sequence of separable tasks; training and test images are the same."""

    def make(tasks: int = 3, setting: Setting = Setting.TASK_GIVEN) -> TaskSequence:
        built = [tiny_task_data(index) for index in range(tasks)]
        sets = [ImageTensors(data.images, data.labels) for _, data in built]
        benchmark = Benchmark("toy", 1, setting, "given", tuple(task for task, _ in built))
        return TaskSequence(benchmark, lambda t: (sets[t], sets[t]), image_size=32)

    return make


@pytest.fixture
def run(
    tmp_path: Path, make_sequence: Callable[..., TaskSequence], make_model: Callable[[], CLIP]
) -> Run:
    """Runs a method on the toy sequence, in a directory that depends on the settings only."""

    def start(
        method: Method,
        *,
        reporter: Reporter | None = None,
        sequence: TaskSequence | None = None,
        runs_dir: Path | None = None,
        model: CLIP | None = None,
        steps: int = 6,
        trackers: Sequence[Tracker] = (),
        probes: Probes | None = None,
        **settings: Any,
    ) -> RunResult:
        resolved = RunSettings.model_validate(
            {
                "benchmark": {"name": "toy"},
                "method": {"name": method.name, "params": method.hyperparameters()},
                "train": {"steps": steps, "batch_size": 8, "lr": 1e-3, "warmup": 2},
                "device": "cpu",
                **settings,
            }
        )
        runs = runs_dir or tmp_path / "runs"
        chosen = model or make_model()
        with RunDirectory(run_path(runs, resolved), runs) as directory:
            runner = SequenceRunner(
                resolved,
                sequence or make_sequence(),
                chosen,
                method,
                directory,
                reporter=reporter or QuietReporter(),
                zero_shot=ZeroShotCache(runs, {"backbone": chosen.fingerprint()}),
                publish=lambda result, folder: None,
                probes=probes,
            )
            return runner.run(trackers)

    return start


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Every test that is made: how many tasks were learned, and the tasks that are tested."""
    tests: list[tuple[int, list[int]]] = []
    make = testing.EvaluationModule

    def noting(scorer, classify, benchmark, learned, groups):
        tests.append((learned, [task for group in groups for task in group]))
        return make(scorer, classify, benchmark, learned, groups)

    monkeypatch.setattr(testing, "EvaluationModule", noting)
    return tests


@pytest.fixture
def make_model(tiny_clip: CLIP) -> Callable[[], CLIP]:
    """Builds the same model each time, whatever a run does to it."""
    import copy

    original = copy.deepcopy(tiny_clip)
    return lambda: copy.deepcopy(original)
