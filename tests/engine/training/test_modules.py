from __future__ import annotations

import pytest
import torch

from clbench.clip.model import CLIP
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan
from clbench.engine.training.modules import TrainingModule
from clbench.methods.finetune import Finetune


def make_module(tiny_clip: CLIP, settings: TrainSettings, task: str = "a") -> TrainingModule:
    method = Finetune()
    method.prepare(tiny_clip)
    plan = TrainingPlan(settings.steps_for(task, 100), settings.lr_for(task), settings)
    return TrainingModule(method, torch.zeros(1, 2, dtype=torch.int64), plan, task)


def test_the_learning_rate_warms_up_and_falls_to_zero(tiny_clip: CLIP) -> None:
    settings = TrainSettings(steps=10, lr=1.0, warmup=0.2)
    configured = make_module(tiny_clip, settings).configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0, abs=1e-12)


def test_a_task_may_have_its_own_rate_and_steps(tiny_clip: CLIP) -> None:
    settings = TrainSettings(steps={"default": 10, "b": 4}, lr={"default": 1.0, "b": 3.0}, warmup=0)
    rates = {
        task: make_module(tiny_clip, settings, task)
        .configure_optimizers()["optimizer"]
        .param_groups[0]["lr"]
        for task in ("a", "b")
    }
    assert rates == {"a": 1.0, "b": 3.0}
    assert settings.steps_for("b", 100) == 4


def test_the_optimizer_gets_what_requires_grad_and_the_settings(tiny_clip: CLIP) -> None:
    settings = TrainSettings(betas=(0.5, 0.6), weight_decay=0.3)
    module = make_module(tiny_clip, settings)
    group = module.configure_optimizers()["optimizer"].param_groups[0]
    count = sum(p.numel() for p in group["params"])
    assert count == module.method.trainable_parameters()
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.6), 0.3)
