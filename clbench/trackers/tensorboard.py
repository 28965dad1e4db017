"""Runs in TensorBoard: accuracies over tasks, losses over steps, the matrix as an image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clbench.core.results.result import RunResult
from clbench.core.results.tracker import Stage, probe_values, stages
from clbench.trackers.heatmap import heatmap_image

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes event files to ``tensorboard/`` in the run directory.

    A resumed run starts a new event file. Earlier points are read from the run directory, so that
    none appears twice.
    """

    name = "TensorBoard"

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def begin(self, result: RunResult, folder: Path) -> None:
        """Start the event file and write the points of an earlier start."""
        from torch.utils.tensorboard import SummaryWriter

        for old in (folder / FOLDER).glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder / FOLDER))
        text = json.dumps(result.config, indent=2)
        self._writer.add_text("configuration", f"```json\n{text}\n```")
        for stage in stages(result, folder):
            self._stage(result, stage)
        self._results(result)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Write loss terms and learning rate."""
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def row(self, result: RunResult) -> None:
        """Write the newest row of the accuracy matrix."""
        self._stage(result, Stage(result.matrix.learned, True, result.cost.steps, ()))
        self._results(result)

    def end(self, finished: bool) -> None:
        """Close the event file."""
        assert self._writer is not None
        self._writer.close()

    def _stage(self, result: RunResult, stage: Stage) -> None:
        assert self._writer is not None
        for step, values in stage.losses:
            self.losses(step, values)
        if not stage.tested:
            return
        row = result.accuracy.values[stage.learned]
        for name, value in zip(result.benchmark.tasks, row, strict=True):
            if value is not None:
                self._writer.add_scalar(f"accuracy/{name}", value, stage.learned)
        for name, value in probe_values(result, stage.learned):
            self._writer.add_scalar(f"probe/{name}", value, stage.learned)

    def _results(self, result: RunResult) -> None:
        assert self._writer is not None
        learned = result.matrix.learned
        for key, number in result.summary.items():
            if number is not None:
                self._writer.add_scalar(f"summary/{key}", number, learned)
        if (image := heatmap_image(result)) is not None:
            self._writer.add_image("matrix", np.asarray(image), learned, dataformats="HWC")
        self._writer.flush()
