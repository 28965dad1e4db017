"""Lightning callbacks: count correct answers, watch the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torchmetrics import CatMetric

from clbench.core.errors import DivergedError
from clbench.core.results.correctness import Bits
from clbench.engine.process.progress import Reporter
from clbench.engine.process.world import ALONE, World
from clbench.engine.training.modules import EvaluationModule


class AccuracyRowCallback(pl.Callback):
    """Collects during one test which images are correct: a row of the accuracy matrix.

    Answers stay on the device until the test is over, so that no batch waits for the device.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._answers: dict[tuple[int, ...], CatMetric] = {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, EvaluationModule)
        group = tuple(pl_module.groups[dataloader_idx])
        if group not in self._answers:
            # Looking for NaN would wait for the device once per batch.
            self._answers[group] = CatMetric(nan_strategy="disable", sync_on_compute=False).to(
                pl_module.device
            )
        self._answers[group].update(outputs)
        self._reporter.tested(len(outputs))

    def row(self, size: Callable[[int], int]) -> dict[int, Bits]:
        """For every tested task, which of its images are correct: ``(N,)`` bool.

        Args:
            size: number of test images of a task.
        """
        row: dict[int, Bits] = {}
        for group, answers in self._answers.items():
            bits = answers.compute().bool().cpu().numpy()
            ends = np.cumsum([size(task) for task in group])
            row |= dict(zip(group, np.split(bits, ends[:-1]), strict=True))
        return row


class LossCallback(pl.Callback):
    """Logs averaged loss terms, moves the progress bar and stops at a loss that is not finite.

    The terms are summed on the device and read once per interval, so training is not held up.

    Args:
        reporter: shows the loss.
        log: receives one record per interval.
        explain: receives what is known of a loss that is not finite.
        total: steps of the whole task.
        interval: steps between two readings.
        world: the processes that train together; what is read is averaged over them.
    """

    def __init__(
        self,
        reporter: Reporter,
        log: Callable[[Mapping[str, Any]], None],
        explain: Callable[[str], None],
        total: int,
        interval: int = 20,
        world: World = ALONE,
    ) -> None:
        self._reporter = reporter
        self._log = log
        self._explain = explain
        self._total = total
        self._interval = interval
        self._world = world
        self._sums: dict[str, Tensor] = {}
        self._recent: list[Tensor] = []
        self._unread: list[dict[str, Tensor]] = []
        self._count = 0
        self._resumed_at = 0
        self.steps = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.steps += 1
        self._unread.append({k: v.detach().float() for k, v in (outputs or {}).items()})
        self._count += 1
        self._reporter.stepped()
        if self._count == self._interval:
            self._flush(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._count and self.steps >= self._total:  # otherwise a checkpoint keeps the sums
            self._flush(trainer)

    def state(self) -> dict[str, Any]:
        """What is not logged yet, for a checkpoint."""
        self._average()
        return {
            "sums": self._sums,
            "recent": list(self._recent),
            "count": self._count,
            "steps": self.steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self._sums = dict(state["sums"])
        self._recent = list(state["recent"])
        self._count = state["count"]
        self.steps = self._resumed_at = state["steps"]

    def require_finite(self, trainer: pl.Trainer) -> None:
        """Check the loss of the steps since the last reading, which waits for the device.

        Raises:
            DivergedError: it was not finite in one of them.
        """
        self._average()
        if "loss" not in self._sums or math.isfinite(float(self._sums["loss"])):
            return
        values = [float(value) for value in self._recent]
        bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), 0)
        step = self.steps - len(values) + bad + 1
        sampler: Any = getattr(trainer.train_dataloader, "batch_sampler", None)
        sampler = getattr(sampler, "batches", sampler)  # the whole, not the share of this process
        batch = list(next(islice(sampler or (), step - 1 - self._resumed_at, None), ()))
        self._explain(f"loss {values[bad]} at step {step}, training images {batch}")
        shown = ", ".join(map(str, batch[:4])) + (", ..." if len(batch) > 4 else "")
        raise DivergedError(
            f"the loss became {values[bad]} at step {step} of this task (training images {shown}; "
            "all in log.txt): try a lower learning rate (--set train.lr=...) or "
            "--set train.clip_grad_norm=1"
        )

    def _average(self) -> None:
        """Add up what is not read yet, step by step, as means over all processes.

        Sums are then the same bits however often a checkpoint needs them.
        """
        values = [value for terms in self._unread for value in terms.values()]
        if self._world.size > 1 and values:
            values = list(self._world.mean(torch.stack(values)).unbind())
        means = iter(values)
        for terms in self._unread:
            for name in terms:
                term = next(means)
                self._sums[name] = self._sums[name] + term if name in self._sums else term
                if name == "loss":
                    self._recent.append(term)
        self._unread = []

    def _flush(self, trainer: pl.Trainer) -> None:
        self.require_finite(trainer)
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._recent, self._count = {}, [], 0
        if "loss" in means:
            self._reporter.loss(means["loss"])
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._log({"step": self.steps, "lr": learning_rate, **means})
