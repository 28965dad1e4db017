"""What a run counts and notes about itself, and the result made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch

from clbench.core.method import Footprint, Method
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import (
    AccuracyRecord,
    BackboneRecord,
    CostRecord,
    DataRecord,
    FootprintRecord,
    MethodRecord,
    RunResult,
    Status,
)
from clbench.core.settings import RunSettings
from clbench.engine.rundir import provenance
from clbench.engine.rundir.costs import Stopwatch, peak_memory, reset_peak_memory
from clbench.engine.rundir.diagnostics import ProbeHistory, RankHistory
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.sources import source_hash


class Recorder:
    """Counts time, steps and memory of a run over all its restarts.

    Args:
        settings: the resolved configuration.
        inputs: weights, images, prompts and reference data.
        device: where the run computes.
        starter: who started the processes that train together, if it was not clbench.

    Attributes:
        nodes: the machine of each process.
    """

    def __init__(
        self,
        settings: RunSettings,
        inputs: Inputs,
        device: torch.device,
        starter: str = "",
    ) -> None:
        self.settings = settings
        self.inputs = inputs
        self.device = device
        self.stopwatch = Stopwatch()
        self.ranks = RankHistory(len(inputs.benchmark.tasks))
        self.probes = ProbeHistory(len(inputs.benchmark.tasks))
        self.steps = 0
        self.footprint = Footprint(trainable=0, added=0, stored=0, external=0)
        self.reference: str | None = None
        self.validation: dict[str, str] = {}
        self.started = provenance.timestamp()
        self.resumed: list[str] = []
        self.starter = starter
        self.nodes: list[str] = []
        self.shared = bool(provenance.launch()["shared"])
        self._earlier_peak = 0

    def task_learned(
        self, task: str, footprint: Footprint, reference: str | None, held_out: str | None
    ) -> None:
        """Note what a task cost besides time, and which data it used besides its own.

        Args:
            task: its name.
            footprint: measured after it, with the parameters that were trained in it.
            reference: where reference data came from.
            held_out: hash of its validation split.
        """
        most = max(footprint.trainable, self.footprint.trainable)
        self.footprint = replace(footprint, trainable=most)
        self.reference = reference or self.reference
        if held_out is not None:
            self.validation[task] = held_out

    def counters(self, steps: int = 0) -> dict[str, Any]:
        """Everything counted so far, as a checkpoint keeps it.

        Args:
            steps: optimizer steps of the task that is being trained.
        """
        return {
            "seconds": self.stopwatch.so_far(),
            "steps": self.steps + steps,
            "peak_memory": self._peak_memory(),
            "footprint": asdict(self.footprint),
            "reference": self.reference,
            "validation": self.validation,
            "ranks": self.ranks.state(),
            "started": self.started,
            "resumed": self.resumed,
            "shared": self.shared,
        }

    def restore(self, counters: Mapping[str, Any], steps: int, where: str) -> None:
        """Go on counting from a checkpoint.

        Args:
            counters: what `counters` returned.
            steps: optimizer steps of the unfinished task among them.
            where: how far the run had come, for the list of restarts.
        """
        self.stopwatch.seconds = dict(counters["seconds"])
        self.steps = counters["steps"] - steps
        self._earlier_peak = counters["peak_memory"] or 0
        self.footprint = Footprint(**counters["footprint"])
        self.reference = counters["reference"]
        self.validation = dict(counters.get("validation", {}))
        self.ranks.load_state(counters["ranks"])
        self.started = counters["started"]
        self.shared |= bool(counters.get("shared", False))
        self.resumed = [*counters["resumed"], f"{provenance.timestamp()} {where}"]

    def restore_costs(self, cost: CostRecord) -> None:
        """Take costs from a result that was written after the checkpoint."""
        self.stopwatch.seconds = {
            "training": cost.training_seconds,
            "evaluation": cost.evaluation_seconds,
            "overhead": cost.overhead_seconds,
        }
        self._earlier_peak = max(self._earlier_peak, cost.peak_memory_bytes or 0)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While open, memory does not count."""
        self._earlier_peak = self._peak_memory()
        try:
            yield
        finally:
            reset_peak_memory(self.device)

    def result(self, matrix: AccuracyMatrix, method: Method) -> RunResult:
        """The result so far."""
        settings, inputs, seconds = self.settings, self.inputs, self.stopwatch.so_far()
        finished: Status = "quick" if settings.quick else "complete"
        return RunResult(
            status=finished if matrix.complete else "partial",
            benchmark=inputs.benchmark,
            method=MethodRecord(
                name=settings.method.name,
                params=method.hyperparameters(),
                needs=tuple(sorted(method.needs)),
                paper=method.paper,
                decides_by_batch=method.decides_by_batch,
                source=source_hash(type(method)),
            ),
            backbone=BackboneRecord(
                model=inputs.backbone,
                weights=settings.backbone.weights,
                fingerprint=inputs.weights,
            ),
            seed=settings.seed,
            accuracy=AccuracyRecord.of(matrix),
            summary=matrix.summary(),
            footprint=FootprintRecord(**asdict(self.footprint)),
            cost=CostRecord(
                training_seconds=round(seconds.get("training", 0.0), 3),
                evaluation_seconds=round(seconds.get("evaluation", 0.0), 3),
                overhead_seconds=round(seconds.get("overhead", 0.0), 3),
                peak_memory_bytes=self._peak_memory(),
                steps=self.steps,
            ),
            config=settings.model_dump(mode="json"),
            config_hash=settings.fingerprint(),
            data=DataRecord(
                splits=dict(inputs.splits),
                prompts=dict(inputs.prompts),
                validation=dict(self.validation),
                reference=self.reference,
                reference_hashes=dict(inputs.reference or {}),
            ),
            provenance={
                **provenance.collect(self.device, type(method)),
                "started": self.started,
                "ended": provenance.timestamp(),
                "resumed": self.resumed,
                "launch": self._launch(),
            },
            effective_rank=self.ranks.record(),
            probes=self.probes.records(),
        )

    def _launch(self) -> dict[str, Any]:
        launch = {**provenance.launch(), "shared": self.shared}
        if len(self.nodes) > 1:
            launch |= {"nodes": self.nodes, "launcher": self.starter or launch["launcher"]}
        return launch

    def _peak_memory(self) -> int:
        return max(self._earlier_peak, peak_memory(self.device))
