"""Optimizers that methods bring: driven, saved and resumed by the engine; and those of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from clbench.clip.losses import classification
from clbench.clip.model import CLIP
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError, Stopped
from clbench.core.method import Method
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan, trained_parameters
from clbench.engine.rundir.checkpoints import CheckpointStore, Position
from clbench.engine.rundir.state_tree import pack, unpack
from clbench.engine.training.modules import planned
from clbench.testing.toys import make_clip
from tests.engine.rundir.test_resuming import Kill, Killed, Signal, folder, outcome
from tests.small_runs import run_small, write_tasks


class Projections(Method):
    """Trains the image projection and one weight of the text encoder."""

    name = "projections"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.head.requires_grad_(True)
        self.rest.requires_grad_(True)

    @property
    def head(self) -> nn.Parameter:
        return self.model.network.visual.proj

    @property
    def rest(self) -> nn.Parameter:
        return self.model.network.positional_embedding

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"classification": classification(self.model, batch)}


class Momentum(Projections):
    """SGD with momentum; the head has ten times the rate and a decay of its own."""

    def optimizer(self, plan: TrainingPlan) -> Optimizer:
        head = {"params": [self.head], "lr": 10 * plan.lr, "weight_decay": 0.1}
        return SGD([head, {"params": [self.rest]}], lr=plan.lr, momentum=0.9, nesterov=True)


class Milestones(Projections):
    """Adam, whose decay is part of the gradient, under a schedule that counts by step."""

    def optimizer(self, plan: TrainingPlan) -> tuple[Optimizer, LRScheduler]:
        optimizer = Adam(trained_parameters(self), lr=plan.lr, weight_decay=0.1, amsgrad=True)
        return optimizer, MultiStepLR(optimizer, [2, 4, 5], gamma=0.3)


class OneCycle(Projections):
    """A schedule that moves the betas too, over the recipe's optimizer."""

    def optimizer(self, plan: TrainingPlan) -> tuple[Optimizer, LRScheduler]:
        optimizer = plan.optimizer([{"params": [self.rest]}, {"params": [self.head]}])
        return optimizer, OneCycleLR(optimizer, [plan.lr, 3 * plan.lr], total_steps=plan.steps)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks")


@pytest.mark.parametrize(
    ("cls", "recipe"),
    [
        pytest.param(Momentum, {}, marks=pytest.mark.slow),
        pytest.param(Milestones, {}, marks=pytest.mark.slow),
        (OneCycle, {}),
        pytest.param(
            Projections,
            {"train__optimizer": "sgd", "train__momentum": 0.9},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Projections,
            {"train__optimizer": "adam", "train__schedule": "linear"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Projections,
            {"train__epochs": 3.5, "train__schedule": "constant"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["momentum", "milestones", "one-cycle", "recipe-sgd", "recipe-adam", "recipe-epochs"],
)
def test_a_run_goes_on_in_the_middle_of_a_task_bit_for_bit(
    cls: type[Method], recipe: dict[str, Any], tasks: Path, tmp_path: Path
) -> None:
    settings = {"train__steps": 7, "train__weight_decay": 0.01, **recipe}
    run_small(cls, tasks, tmp_path / "whole", **settings)
    cut = {**settings, "checkpoint_every__steps": 2}
    with pytest.raises(Killed):
        run_small(cls, tasks, tmp_path / "cut", reporter=Kill(task=0, step=4), **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions()[0] == Position(0, 2)
    with pytest.raises(Stopped):
        run_small(cls, tasks, tmp_path / "cut", reporter=Signal(task=1, step=3), **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions()[0] == Position(1, 3)
    run_small(cls, tasks, tmp_path / "cut", **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_state_tree_keeps_keys_that_are_numbers() -> None:
    schedule = MultiStepLR(SGD([torch.zeros(1, requires_grad=True)], lr=1.0), [2, 4, 4])
    tensors, tree = pack({"schedule": schedule.state_dict(), "moments": {0: torch.ones(2)}})
    found = unpack(tensors, tree)
    assert found["schedule"]["milestones"] == {2: 1, 4: 2}
    assert torch.equal(found["moments"][0], torch.ones(2))


def prepared(method: Method) -> Method:
    method.prepare(make_clip())
    return method


PLAN = TrainingPlan(10, 0.01, TrainSettings(weight_decay=0.2, betas=(0.5, 0.6), warmup=2))


def test_a_schedule_of_the_recipe_scales_every_group() -> None:
    optimizer, schedule = planned(prepared(Momentum()), PLAN)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx([0.05, 0.005])  # the first of two steps of warm-up
    assert rates[2] == pytest.approx([0.1, 0.01])
    assert all(head == pytest.approx(10 * rest) for head, rest in rates)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]


class Forgetful(Projections):
    """Leaves a parameter that requires grad out."""

    def optimizer(self, plan: TrainingPlan) -> Optimizer:
        return plan.optimizer([self.head])


class Foreign(Projections):
    """Trains a parameter that is not part of the method."""

    def optimizer(self, plan: TrainingPlan) -> Optimizer:
        return plan.optimizer([*trained_parameters(self), nn.Parameter(torch.zeros(2))])


class Frozen(Projections):
    """Hands over a parameter that is frozen."""

    def optimizer(self, plan: TrainingPlan) -> Optimizer:
        return plan.optimizer([*trained_parameters(self), self.model.logit_scale])


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (
            Forgetful,
            "the optimizer of method 'projections' lacks 1 parameters that require grad (first: "
            "model.network.positional_embedding): give it all of them, or freeze the others",
        ),
        (Foreign, "the optimizer of method 'projections' holds parameters that do not require"),
        (Frozen, "the optimizer of method 'projections' holds parameters that do not require"),
    ],
)
def test_an_optimizer_with_the_wrong_parameters_is_refused(
    cls: type[Method], expected: str, tasks: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClbenchError) as caught:
        run_small(cls, tasks, tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "kind", "after"),
    [
        ({}, AdamW, [1.996, 1.992008]),  # the decay shrinks: 2 (1 - 0.01 * 0.2)
        ({"optimizer": "adam"}, Adam, [1.99, 1.98]),  # the decay is all of the gradient
        ({"optimizer": "sgd"}, SGD, [1.996, 1.992008]),
        ({"optimizer": "sgd", "momentum": 0.5}, SGD, [1.996, 1.990008]),
    ],
)
def test_a_recipe_names_its_optimizer(
    settings: dict[str, Any], kind: type[Optimizer], after: list[float]
) -> None:
    plan = TrainingPlan(10, 0.01, TrainSettings(weight_decay=0.2, **settings))
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = plan.optimizer([weight])
    assert type(optimizer) is kind
    for expected in after:
        weight.grad = torch.zeros(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-5)
