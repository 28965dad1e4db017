"""Costs of runs that are not made yet, from those of runs that are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clbench import config
from clbench.core.settings import RunSettings
from clbench.engine.rundir.directory import run_path
from clbench.launch.forecast.estimates import Costs, total
from tests import made_up


def resolved(method: str = "nusa", **overrides: Any) -> RunSettings:
    """Settings of a run on mini; a dot in a setting's name is ``__`` here."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return config.resolve(method, "mini", overrides=dotted)[0]


def finish(runs: Path, settings: RunSettings, training: float, **changes: Any) -> None:
    """A run that trained for so many seconds, and was tested for 5."""
    result = made_up.make_result(
        settings.method.name,
        settings.seed,
        training_seconds=training,
        evaluation_seconds=4.0,
        overhead_seconds=1.0,
        config_hash=settings.fingerprint(),
        **{"peak_memory_bytes": 1000, **changes},
    )
    path = run_path(runs, settings) / "result.json"
    result.model_copy(update={"config": settings.model_dump(mode="json")}).save(path)


def test_runs_with_other_seeds_tell_most(tmp_path: Path) -> None:
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        finish(tmp_path, resolved(seed=seed), seconds, peak_memory_bytes=1000 + seed)
    finish(tmp_path, resolved(train__steps=7), 999.0)
    cost = Costs([tmp_path]).of(resolved(seed=2))
    assert cost is not None
    assert (cost.seconds, cost.memory, cost.basis) == (20.0, 1001, "other seeds (2)")
    sizes = [path.stat().st_size for path in run_path(tmp_path, resolved()).iterdir()]
    assert cost.disk == pytest.approx(sum(sizes), abs=5)


def test_training_is_stretched_to_other_steps_and_batches(tmp_path: Path) -> None:
    finish(tmp_path, resolved(train__steps=100, train__batch_size=32), 10.0)
    costs = Costs([tmp_path])
    longer = costs.of(resolved(train__steps=300, train__batch_size=16))
    assert longer is not None
    assert (longer.seconds, longer.basis) == (20.0, "other settings (1)")
    mapped = costs.of(resolved(train__steps={"default": 100, "clocks": 400}))
    assert mapped is not None
    assert mapped.seconds == 25.0, "three tasks: 600 steps instead of 300"


def test_other_methods_tell_something_and_other_backbones_nothing(tmp_path: Path) -> None:
    finish(tmp_path, resolved("lora"), 10.0)
    costs = Costs([tmp_path])
    other = costs.of(resolved("nusa", train__steps=100))
    assert other is not None
    assert other.basis == "other methods (1)"
    assert costs.of(resolved(backbone__model="ViT-B-16")) is None
    assert costs.of(resolved(benchmark__shots=5)) is None


def test_interrupted_and_damaged_runs_tell_nothing(tmp_path: Path) -> None:
    finish(tmp_path, resolved(seed=0), 10.0, status="partial")
    damaged = run_path(tmp_path, resolved(seed=1)) / "result.json"
    damaged.parent.mkdir()
    damaged.write_text('{"status": "complete"}')
    assert Costs([tmp_path]).of(resolved(seed=2)) is None


def test_the_whole_takes_as_long_as_its_rounds(tmp_path: Path) -> None:
    finish(tmp_path, resolved(), 15.0)
    cost = Costs([tmp_path]).of(resolved(seed=1))
    assert cost is not None
    seconds, memory, disk = total([cost, cost, None, None], jobs=2)
    assert (seconds, memory) == (40.0, 2000)
    assert disk == 4 * cost.disk
    assert total([None], 2) == (0.0, 0, 0)
