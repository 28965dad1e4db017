"""Saving and restoring in the middle of a task."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl

from clbench.core.method import Method
from clbench.core.settings import CheckpointSettings
from clbench.engine.process import randomness
from clbench.engine.process.stopping import StopRequest
from clbench.engine.process.world import ALONE, World
from clbench.engine.training.callbacks import LossCallback

State = Mapping[str, Any]


class StepCheckpoints(pl.Callback):
    """Saves every so often, stops where that was asked for, and goes on from a checkpoint.

    Args:
        every: how often to save.
        stop: whether to stop after the current step.
        losses: counts the steps, and runs before this callback.
        total: optimizer steps of the task.
        save: receives the steps done and the state of the trainer.
        resumed: the state to go on from.
        world: the processes that train together; they save and stop after the same step.
    """

    def __init__(
        self,
        every: CheckpointSettings,
        stop: StopRequest,
        losses: LossCallback,
        total: int,
        save: Callable[[int, State], None],
        resumed: State | None,
        world: World = ALONE,
    ) -> None:
        self._every = every
        self._stop = stop
        self._losses = losses
        self._total = total
        self._save = save
        self._resumed = resumed
        self._world = world
        self._saved_at = time.monotonic()
        if resumed is not None:
            losses.load_state(resumed["losses"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop.listen()
        self._saved_at = time.monotonic()
        if self._resumed is not None:
            restore_trainer(trainer, self._resumed)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._resumed is not None:
            # Only now: making the loader's iterator draws a number.
            randomness.restore(self._resumed["random"])
            self._resumed = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = self._losses.steps
        if step >= self._total:
            return  # the task is about to be finished and saved as a whole
        stopping, due = self._world.any(self._stop.signum is not None, self._due(step))
        if stopping or due:
            self._losses.require_finite(trainer)
            self._save(step, trainer_state(trainer) | {"losses": self._losses.state()})
            self._saved_at = time.monotonic()
        if stopping:
            self._stop.signum = self._stop.signum or signal.SIGTERM  # another process got it
            trainer.should_stop = True

    def _due(self, step: int) -> bool:
        steps = self._every.steps
        if steps is not None and step % steps == 0:
            return True
        # The monotonic clock: that of the day may be set back.
        return time.monotonic() - self._saved_at >= self._every.seconds


class StopInTest(pl.Callback):
    """Ends a test after the current batch where that was asked for."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop.listen()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._stop.check()


def trainer_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Optimizer, schedule, loss scaling and random generators between two steps."""
    optimizer = trainer.optimizers[0].state_dict()
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return {
        "optimizer": {
            "state": {str(index): values for index, values in optimizer["state"].items()},
            "param_groups": optimizer["param_groups"],
        },
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": randomness.capture(),
    }


def restore_trainer(trainer: pl.Trainer, state: State) -> None:
    """Put back what `trainer_state` saved, except the random generators."""
    optimizer = state["optimizer"]
    trainer.optimizers[0].load_state_dict(
        {
            "state": {int(index): values for index, values in optimizer["state"].items()},
            "param_groups": optimizer["param_groups"],
        }
    )
    trainer.lr_scheduler_configs[0].scheduler.load_state_dict(dict(state["scheduler"]))
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(dict(state["scaler"]))


def trained_names(method: Method) -> list[str]:
    """The parameters that the optimizer sees, by name."""
    return [name for name, parameter in method.named_parameters() if parameter.requires_grad]


def train_only(method: Method, names: list[str]) -> None:
    """Let exactly the named parameters require grad."""
    chosen = set(names)
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name in chosen)
