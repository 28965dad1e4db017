"""Lightning callbacks: count correct answers, watch the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import CatMetric

from clbench.core.correctness import Bits
from clbench.core.errors import ClbenchError
from clbench.engine.modules import EvaluationModule
from clbench.engine.progress import Reporter


class AccuracyRowCallback(pl.Callback):
    """Collects during one test which images are correct: a row of the accuracy matrix.

    Answers stay on the device until the test is over, so that no batch waits for the device.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._answers: dict[int, CatMetric] = {}

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
        task = pl_module.tasks[dataloader_idx]
        if task not in self._answers:
            # Looking for NaN would wait for the device once per batch.
            self._answers[task] = CatMetric(nan_strategy="disable").to(pl_module.device)
        self._answers[task].update(outputs)
        self._reporter.tested(len(outputs))

    def row(self) -> dict[int, Bits]:
        """For every tested task, which of its images are correct: ``(N,)`` bool."""
        return {
            task: answers.compute().bool().cpu().numpy() for task, answers in self._answers.items()
        }


class LossCallback(pl.Callback):
    """Logs averaged loss terms, moves the progress bar and stops at a loss that is not finite.

    The terms are summed on the device and read once per interval, so training is not held up.

    Args:
        reporter: shows the loss.
        log: receives one record per interval.
        interval: steps between two readings.
    """

    def __init__(
        self, reporter: Reporter, log: Callable[[Mapping[str, Any]], None], interval: int = 20
    ) -> None:
        self._reporter = reporter
        self._log = log
        self._interval = interval
        self._sums: dict[str, Tensor] = {}
        self._count = 0
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
        for name, value in (outputs or {}).items():
            term = value.detach().float()
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        self._count += 1
        self._reporter.stepped()
        if self._count == self._interval:
            self._flush(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._count:
            self._flush(trainer)

    def _flush(self, trainer: pl.Trainer) -> None:
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        loss = means.get("loss")
        if loss is not None and not torch.isfinite(torch.tensor(loss)):
            raise ClbenchError(
                f"the loss became {loss} near step {self.steps} of this task: try a lower "
                "learning rate (--set train.lr=...) or --set train.clip_grad_norm=1"
            )
        if loss is not None:
            self._reporter.loss(loss)
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._log({"step": self.steps, "lr": learning_rate, **means})
