"""How a recipe says that a task is optimised: steps or epochs, optimizer, schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from clbench import config
from clbench.core.errors import ClbenchError
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan, rate_factor, trained_parameters
from clbench.methods.finetune import Finetune
from clbench.methods.lora import LoRA
from tests.small_runs import run_small, write_tasks


@pytest.mark.parametrize(
    ("settings", "images", "steps"),
    [
        ({"steps": 7}, 100, 7),
        ({"steps": {"default": 7, "birds": 3}}, 100, 3),
        ({"steps": 7, "epochs": 1}, 128, 2),
        ({"epochs": 1}, 129, 3),  # a fraction of a batch is a step
        ({"epochs": 0.001}, 64, 1),
        ({"epochs": 2.5}, 128, 5),
        ({"epochs": 4}, 10, 4),  # batches of a set smaller than a batch have its size
        ({"epochs": {"default": 1, "birds": 3}}, 128, 6),
        ({"epochs": {"default": 2, "cars": 9}}, 128, 4),
    ],
)
def test_steps_of_a_task(settings: dict[str, Any], images: int, steps: int) -> None:
    train = TrainSettings.model_validate({"batch_size": 64, **settings})
    assert train.steps_for("birds", images) == steps


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_factors_of_the_schedules(kind: str, expected: list[float]) -> None:
    assert [rate_factor(step, 2, 6, kind) for step in range(6)] == pytest.approx(expected, abs=1e-6)
    weight = nn.Parameter(torch.zeros(1))
    plan = TrainingPlan(6, 0.1, TrainSettings(warmup=2, schedule=kind))  # type: ignore[arg-type]
    optimizer = SGD([{"params": [weight], "lr": 10.0}])
    schedule = plan.schedule(optimizer)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([10 * factor for factor in expected], abs=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_decay_ends_at_zero_and_stays_there(kind: str) -> None:
    assert [rate_factor(step, 0, 4, kind) for step in (4, 5, 9)] == pytest.approx([0, 0, 0])
    assert rate_factor(0, 0, 1, kind) == 1.0


def test_a_warmup_as_long_as_the_task_only_rises() -> None:
    assert [rate_factor(step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_trained_parameters_are_those_that_require_grad() -> None:
    layers = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    layers[0].requires_grad_(False)
    assert [p.shape for p in trained_parameters(layers)] == [(1, 3), (1,)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer": "lion"}, "train.optimizer='lion': input should be 'adamw', 'adam' or 'sgd'"),
        ({"schedule": "step"}, "train.schedule='step': input should be"),
        ({"epochs": 0}, "train.epochs=0: "),
        ({"epochs": {"birds": 1}}, "a mapping by task needs the entry 'default'"),
        ({"momentum": 1.0}, "train.momentum=1.0: input should be less than 1"),
    ],
)
def test_what_a_recipe_cannot_say(settings: dict[str, Any], expected: str) -> None:
    overrides = {f"train.{key}": value for key, value in settings.items()}
    with pytest.raises(ClbenchError) as caught:
        config.resolve("finetune", "mini", overrides=overrides)
    assert expected in str(caught.value)


def test_a_configuration_file_may_name_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "train: {optimizer: sgd, momentum: 0.9, schedule: linear, epochs: {default: 2, flags: 3}}\n"
    )
    settings, _ = config.resolve("lora", "mini", config=file)
    train = settings.train
    assert (train.optimizer, train.momentum, train.schedule) == ("sgd", 0.9, "linear")
    assert train.epochs == {"default": 2, "flags": 3}
    quick, _ = config.resolve("lora", "mini", config=file, quick=True)
    assert quick.train.steps_for("flags", 1000) == config.QUICK_STEPS


def test_naming_the_defaults_is_the_same_run() -> None:
    def identity(**train: Any) -> str:
        overrides = {f"train.{key}": value for key, value in train.items()}
        return config.resolve("lora", "mini", overrides=overrides)[0].fingerprint()

    same = {"optimizer": "adamw", "momentum": 0.0, "schedule": "cosine", "epochs": None}
    assert identity(**same) == identity()
    changes = ({"optimizer": "adam"}, {"momentum": 0.5}, {"schedule": "linear"}, {"epochs": 1})
    assert len({identity(**change) for change in changes} | {identity()}) == 5


def test_a_run_takes_the_steps_of_its_epochs(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")  # two tasks of twelve images
    options = {"train__epochs": {"default": 1.5, "task1": 0.5}, "train__batch_size": 5}
    result = run_small(Finetune, tasks, tmp_path / "runs", **options)
    assert result.cost.steps == 4 + 2


@pytest.mark.slow
def test_optimizers_and_schedules_lead_to_different_models(tmp_path: Path) -> None:
    """The setting arrives: every choice moves the weights in another way."""
    tasks = write_tasks(tmp_path / "tasks", tasks=1)
    choices: list[dict[str, Any]] = [
        {},
        {"train__optimizer": "sgd", "train__lr": 1.0},
        {"train__optimizer": "adam", "train__weight_decay": 0.5},
        {"train__weight_decay": 0.5},
        {"train__schedule": "linear"},
        {"train__schedule": "constant"},
    ]
    found = set()
    for number, choice in enumerate(choices):
        run_small(LoRA, tasks, tmp_path / str(number), method__rank=2, **choice)
        (weights,) = (tmp_path / str(number)).rglob("task-001.safetensors")
        found.add(weights.read_bytes())
    assert len(found) == len(choices)
