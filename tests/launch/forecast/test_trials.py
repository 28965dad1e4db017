"""Costs by smoke runs, where nothing like a run was ever made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clbench import config
from clbench.engine.rundir.directory import run_path
from clbench.launch.forecast.trials import Sizes, estimate, folder, kinds, shortened
from clbench.launch.plan import Planned
from tests import made_up

SIZES = Sizes({"arrows": 100, "clocks": 50, "flags": 20}, test=700)


def planned(method: str = "nusa", **overrides: Any) -> Planned:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return config.resolve(method, "mini", overrides=dotted)


def test_one_smoke_run_tells_about_all_seeds_and_steps() -> None:
    plans = [planned(seed=seed, train__steps=steps) for seed in (0, 1) for steps in (100, 200)] + [
        planned("lora")
    ]
    assert sorted(s.method.name for s, _ in kinds(plans)) == ["lora", "nusa"]
    short, _ = shortened(plans[3])
    assert (short.quick, short.seed, short.train.steps) == (True, 0, 4)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [({"train__steps": 100}, 300), ({"train__epochs": 2.0, "train__batch_size": 10}, 34)],
)
def test_training_grows_with_steps_and_tests_with_images(
    tmp_path: Path, overrides: dict[str, Any], steps: int
) -> None:
    plan = planned(**overrides)
    assert estimate(plan, tmp_path, SIZES) is None
    result = made_up.make_result(
        status="quick",
        training_seconds=6.0,
        evaluation_seconds=2.0,
        overhead_seconds=0.5,
        peak_memory_bytes=1234,
        steps=12,
    )
    result.save(run_path(folder(tmp_path), shortened(plan)[0]) / "result.json")
    cost = estimate(plan, tmp_path, SIZES)
    assert cost is not None
    assert cost.seconds == pytest.approx(0.5 + 2.0 * 700 / 350 + 6.0 * steps / 12)
    assert (cost.memory, cost.basis) == (1234, "a trial of 12 steps")
