"""Processes that train together, as seen from one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.datamodules.sequence import Share, StepSampler
from clbench.engine.process.progress import QuietReporter
from clbench.engine.process.world import ALONE, World, leading
from clbench.engine.training.callbacks import LossCallback
from tests.small_runs import run_small, write_tasks


@pytest.mark.parametrize(("images", "size"), [(10, 4), (7, 7), (32, 3), (6, 1)])
def test_the_mean_over_processes_is_the_mean_of_the_batch(images: int, size: int) -> None:
    losses = torch.rand(images, dtype=torch.float64)
    means = []
    for rank in range(size):
        (part,) = Share(StepSampler(images, images, 1, seed=0), rank, size)
        means.append(losses[part].mean() * World(rank, size).weight(images))
    assert torch.stack(means).mean() == pytest.approx(losses.mean().item(), abs=1e-15)


def test_one_process_changes_no_loss() -> None:
    assert ALONE.weight(7) == 1.0
    assert World(1, 2).weight(8) == 1.0


def test_more_processes_than_images_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=1, classes=2, images=3)
    said = "devices=7 is more than the 6 images of a batch: use --set devices=6 or less"
    with pytest.raises(ClbenchError, match=said):
        run_small("lora", tasks, tmp_path / "runs", devices=7, train__batch_size=32)
    assert not (tmp_path / "runs").exists()


def test_more_processes_than_gpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = RunSettings.model_validate({"devices": 3})
    with (
        pytest.raises(ClbenchError, match="devices=3, but this machine has 2 CUDA devices"),
        leading(settings, tmp_path, torch.device("cuda")),
    ):
        pass


class Two:
    """Of two processes the first; the other's numbers are twice as large."""

    size = 2

    def __init__(self) -> None:
        self.calls = 0

    def mean(self, value: Tensor) -> Tensor:
        self.calls += 1
        return value * 1.5


TRAINER: Any = SimpleNamespace(
    optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
    train_dataloader=SimpleNamespace(batch_sampler=Share(StepSampler(8, 4, 6, seed=1), 0, 2)),
)


def watched(world: Any, records: list[dict[str, Any]]) -> LossCallback:
    return LossCallback(
        QuietReporter(),
        lambda values: records.append(dict(values)),
        lambda text: records.append({"explained": text}),
        total=6,
        interval=3,
        world=world,
    )


def step(callback: LossCallback, loss: float) -> None:
    outputs = {"loss": torch.tensor(loss), "classification": torch.tensor(loss / 2)}
    module: Any = None
    callback.on_train_batch_end(TRAINER, module, outputs, None, 0)


def test_losses_are_averaged_over_processes_where_they_are_read() -> None:
    world = Two()
    records: list[dict[str, Any]] = []
    callback = watched(world, records)
    for loss in (1.0, 2.0, 3.0, 1.0, 1.0, 1.0):
        step(callback, loss)
    assert world.calls == 2, "once per interval"
    assert [record["loss"] for record in records] == [3.0, 1.5]
    assert [record["classification"] for record in records] == [1.5, 0.75]


def test_a_checkpoint_keeps_the_losses_of_all_processes() -> None:
    callback = watched(Two(), [])
    step(callback, 1.0)
    step(callback, 2.0)
    callback.require_finite(TRAINER)
    state = callback.state()
    assert state["sums"]["loss"] == 4.5
    assert state["recent"] == [1.5, 3.0]


def test_a_loss_that_is_not_finite_is_told_with_the_images_of_all_processes() -> None:
    records: list[dict[str, Any]] = []
    callback = watched(Two(), records)
    step(callback, 1.0)
    step(callback, float("nan"))
    with pytest.raises(ClbenchError, match="at step 2"):
        step(callback, 1.0)
    whole = list(StepSampler(8, 4, 6, seed=1))[1]
    assert records == [{"explained": f"loss nan at step 2, training images {whole}"}]
