"""Runs one method over one task sequence."""

from __future__ import annotations

import logging
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.correctness import CorrectRow, drop_rows, write_row
from clbench.core.data import Batch, ReferencePairs, SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.matrix import AccuracyMatrix
from clbench.core.method import Footprint, Method
from clbench.core.result import (
    AccuracyRecord,
    BackboneRecord,
    BenchmarkRecord,
    CostRecord,
    DataRecord,
    FootprintRecord,
    MethodRecord,
    RunResult,
    Status,
)
from clbench.core.settings import RunSettings
from clbench.core.tracker import Tracker
from clbench.engine import provenance
from clbench.engine.callbacks import AccuracyRowCallback, LossCallback
from clbench.engine.costs import Stopwatch, peak_memory, reset_peak_memory
from clbench.engine.diagnostics import RankHistory
from clbench.engine.modules import Classify, EvaluationModule, TrainingModule
from clbench.engine.progress import Reporter, row_text
from clbench.engine.rundir import RunDirectory
from clbench.engine.tracking import GuardedTrackers
from clbench.engine.zeroshot import ZeroShotCache

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
Publish = Callable[[RunResult, Path], None]


class MethodData:
    """A task's training set as a method sees it: see `clbench.core.data.TaskData`."""

    def __init__(self, sequence: SequenceData, task: int, prompts: Tensor) -> None:
        self._sequence = sequence
        self._task = task
        self._prompts = prompts
        self.reference_used: ReferencePairs | None = None

    def __len__(self) -> int:
        return len(self._sequence.train_set(self._task))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """One pass over the training set in fixed order."""
        images = self._sequence.train_set(self._task)
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            pixels, labels = images.__getitems__(range(start, stop))
            yield Batch(pixels, labels, self._prompts).to(self._prompts.device)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """Pairs for distillation; what was used is noted in the result."""
        pairs = self._sequence.reference_pairs(self._task, source, count, seed)
        self.reference_used = pairs
        return pairs


class SequenceRunner:
    """Trains and tests one method on one sequence, task by task, into a run directory.

    Args:
        settings: the resolved configuration.
        sequence: images of the benchmark's tasks.
        model: the pretrained CLIP; it is changed.
        method: the method, not yet prepared.
        directory: the entered run directory.
        reporter: shows progress.
        zero_shot: row 0 of earlier runs on the same backbone and benchmark.
        publish: writes further files from the result so far.
    """

    def __init__(
        self,
        settings: RunSettings,
        sequence: SequenceData,
        model: CLIP,
        method: Method,
        directory: RunDirectory,
        *,
        reporter: Reporter,
        zero_shot: ZeroShotCache,
        publish: Publish,
    ) -> None:
        self.settings = settings
        self.sequence = sequence
        self.model = model
        self.method = method
        self.directory = directory
        self.reporter = reporter
        self.zero_shot = zero_shot
        self.publish = publish
        self.trackers = GuardedTrackers((), reporter.note)
        self.benchmark = sequence.benchmark
        self.device = _device(settings)
        self.stopwatch = Stopwatch()
        self.steps = 0
        self.started = provenance.timestamp()
        self.resumed: list[str] = []
        self.reference: str | None = None
        self.footprint = Footprint(trainable=0, added=0, stored=0, external=0)
        self.fingerprint = model.fingerprint()
        self.ranks = RankHistory(len(self.benchmark))

    def run(self, trackers: Sequence[Tracker] = ()) -> RunResult:
        """Run what is missing and return the finished result.

        Args:
            trackers: receive the numbers as the run goes on; one that fails is left out.

        Raises:
            ClbenchError: the loss is not finite, data or disk fail. Finished tasks are kept.
        """
        self.trackers = GuardedTrackers(trackers, self.reporter.note)
        self.model.to(self.device)
        result = self._unfinished()
        done = 0 if result is None else result.matrix.learned
        self.reporter.begin(self._title(), [t.name for t in self.benchmark.tasks], done)
        self.directory.log(f"{provenance.timestamp()} {self._title()}, {done} tasks done before")
        try:
            with _quiet_libraries():
                result = self._run(result)
        finally:
            self.reporter.end()
            self.trackers.end(result is not None and result.matrix.complete)
        return result

    def _run(self, result: RunResult | None) -> RunResult:
        reset_peak_memory(self.device)
        self.directory.save_settings(self.settings)
        if result is None:
            self.ranks.measure(0, self.model)
        matrix = self._row_zero() if result is None else result.matrix
        with self.stopwatch.measure("overhead"):
            seed_everything(self.settings.seed, 0)
            self.method.prepare(self.model)
            self.method.to(self.device)
        if result is not None:
            self._restore(result)
        else:
            result = self._save(matrix)
        self.trackers.begin(result, self.directory.path)
        for task in range(matrix.learned, len(self.benchmark)):
            self._learn(task)
            correct = self._test(task + 1, self.method, self.method.classify)
            matrix = self._record(matrix, task + 1, correct)
            self.directory.save_checkpoint(task + 1, self.method.state_dict())
            result = self._save(matrix)
            self.trackers.row(result)
        return result

    def _row_zero(self) -> AccuracyMatrix:
        """An empty matrix with the zero-shot row, tested or taken from an earlier run."""
        matrix = AccuracyMatrix.empty(
            tasks=[task.name for task in self.benchmark.tasks],
            counts=[len(self.sequence.test_set(t)) for t in range(len(self.benchmark))],
            setting=self.benchmark.setting,
        )
        correct = self.zero_shot.load()
        if correct is None:
            correct = self._test(0, self.model, _zero_shot(self.model))
            self.zero_shot.save(correct)
        return self._record(matrix, 0, correct)

    def _learn(self, task: int) -> None:
        """Train on one task, between the method's begin and end hooks."""
        spec = self.benchmark.tasks[task]
        seed_everything(self.settings.seed, task + 1)
        prompts = self.model.tokenize([p[0] for p in spec.classes.prompts])
        data = MethodData(self.sequence, task, prompts)
        with self.stopwatch.measure("overhead"):
            self.method.train()
            self.method.begin_task(spec, data)
        trainable = self.method.trainable_parameters()
        if trainable:
            self._fit(task, prompts)
        with self.stopwatch.measure("overhead"):
            self.method.eval()
            self.method.end_task(spec, data)
        if trainable:
            self.ranks.measure(task + 1, self.model)
        most = max(trainable, self.footprint.trainable)
        self.footprint = replace(self.method.footprint(), trainable=most)
        if data.reference_used is not None:
            self.reference = data.reference_used.source

    def _fit(self, task: int, prompts: Tensor) -> None:
        train = self.settings.train
        name = self.benchmark.tasks[task].name
        steps = train.steps_for(name)
        loader = self.sequence.train_loader(
            task,
            batch_size=train.batch_size,
            steps=steps,
            seed=self.settings.seed,
            augmentation=train.augmentation,
        )
        losses = LossCallback(self.reporter, lambda values: self._log_losses(task, values))
        module = TrainingModule(self.method, prompts, train, name).train()
        self.reporter.training(task, steps)
        with self.stopwatch.measure("training"), _interruptible():
            self._trainer(losses, max_steps=steps).fit(module, loader)
        self.steps += losses.steps
        self.method.zero_grad(set_to_none=True)
        self.method.to(self.device)

    def _log_losses(self, task: int, values: Mapping[str, Any]) -> None:
        self.directory.record({"task": task + 1, **values})
        step = self.steps + values["step"]
        self.trackers.losses(step, {k: v for k, v in values.items() if k != "step"})

    def _test(self, learned: int, scorer: torch.nn.Module, classify: Classify) -> CorrectRow:
        """Test every task that has candidates: task name to which images are correct."""
        tasks = [
            t
            for t in range(len(self.benchmark))
            if self.benchmark.candidates(learned, t) is not None
        ]
        if not tasks:
            return {}
        batch_size = self.settings.evaluation.batch_size
        loaders = [self.sequence.test_loader(t, batch_size=batch_size) for t in tasks]
        self.reporter.testing(sum(len(self.sequence.test_set(t)) for t in tasks))
        counter = AccuracyRowCallback(self.reporter)
        module = EvaluationModule(scorer, classify, self.benchmark, learned, tasks)
        with self.stopwatch.measure("evaluation"), self.model.frozen(), _interruptible():
            self._trainer(counter).test(module, loaders, verbose=False)
        scorer.to(self.device)
        return {self.benchmark.tasks[t].name: bits for t, bits in counter.row().items()}

    def _record(self, matrix: AccuracyMatrix, learned: int, correct: CorrectRow) -> AccuracyMatrix:
        """Keep a finished row image by image, show and log it, and add it to the matrix."""
        write_row(self.directory.path, learned, correct)
        names = [task.name for task in self.benchmark.tasks]
        row = {t: float(correct[name].mean()) for t, name in enumerate(names) if name in correct}
        if row:
            self.reporter.row(learned, row)
            self.directory.log(f"{provenance.timestamp()} {row_text(names, learned, row)}")
        return matrix.with_row(learned, [row.get(t, float("nan")) for t in range(len(names))])

    def _trainer(self, callback: pl.Callback, **options: Any) -> pl.Trainer:
        return pl.Trainer(
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            precision=PRECISIONS[self.settings.precision],  # type: ignore[arg-type]
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=self.settings.train.clip_grad_norm,
            default_root_dir=self.directory.path,
            **options,
        )

    def _title(self) -> str:
        name, benchmark = self.settings.method.name, self.benchmark
        smoke = ", quick: numbers mean nothing" if self.settings.quick else ""
        return f"{name} on {benchmark.name} v{benchmark.version} (seed {self.settings.seed}{smoke})"

    def _unfinished(self) -> RunResult | None:
        """The partial result to go on from, if its checkpoint is readable."""
        result = self.directory.result()
        if result is None or result.matrix.learned == 0:
            return None
        if self.directory.load_checkpoint(result.matrix.learned) is None:
            self.reporter.note("the checkpoint is missing or damaged: starting anew")
            return None
        return result

    def _restore(self, result: RunResult) -> None:
        learned = result.matrix.learned
        state = self.directory.load_checkpoint(learned)
        if state is None:
            raise ClbenchError(f"the checkpoint in {self.directory.path} vanished: run again")
        self.method.load_state_dict(state)
        self.directory.drop_records(learned)
        drop_rows(self.directory.path, learned)
        cost = result.cost
        self.footprint = Footprint(**result.footprint.model_dump())
        self.stopwatch.seconds = {
            "training": cost.training_seconds,
            "evaluation": cost.evaluation_seconds,
            "overhead": cost.overhead_seconds,
        }
        self.steps = cost.steps
        self.ranks.restore(result.effective_rank)
        self.started = result.provenance["started"]
        self.reference = result.data.reference
        self.resumed = [*result.provenance["resumed"], provenance.timestamp()]

    def _save(self, matrix: AccuracyMatrix) -> RunResult:
        """Write the result so far."""
        settings, seconds = self.settings, self.stopwatch.seconds
        finished: Status = "quick" if settings.quick else "complete"
        result = RunResult(
            status=finished if matrix.complete else "partial",
            benchmark=BenchmarkRecord.of(self.benchmark),
            method=MethodRecord(
                name=settings.method.name,
                params=self.method.hyperparameters(),
                needs=tuple(sorted(self.method.needs)),
                paper=self.method.paper,
            ),
            backbone=BackboneRecord(**settings.backbone.model_dump(), fingerprint=self.fingerprint),
            seed=settings.seed,
            accuracy=AccuracyRecord.of(matrix),
            summary=matrix.summary(),
            footprint=FootprintRecord(**asdict(self.footprint)),
            cost=CostRecord(
                training_seconds=round(seconds.get("training", 0.0), 3),
                evaluation_seconds=round(seconds.get("evaluation", 0.0), 3),
                overhead_seconds=round(seconds.get("overhead", 0.0), 3),
                peak_memory_bytes=peak_memory(self.device),
                steps=self.steps,
            ),
            config=settings.model_dump(mode="json"),
            config_hash=settings.fingerprint(),
            data=DataRecord(splits=self._split_digests(), reference=self.reference),
            provenance={
                **provenance.collect(self.device),
                "started": self.started,
                "ended": provenance.timestamp(),
                "resumed": self.resumed,
            },
            effective_rank=self.ranks.record(),
        )
        self.directory.save_result(result)
        self.publish(result, self.directory.path)
        return result

    def _split_digests(self) -> dict[str, str]:
        digests: dict[str, str] = {}
        for t, task in enumerate(self.benchmark.tasks):
            digests[f"{task.name}/train"] = self.sequence.train_set(t).digest()[:16]
            digests[f"{task.name}/test"] = self.sequence.test_set(t).digest()[:16]
        return digests


def seed_everything(seed: int, stage: int) -> None:
    """Seed every global generator for one stage of a run (0: preparation, t: task t).

    Each task starts from its own seed, so a run that goes on after task t draws the same
    numbers as one that was never interrupted.
    """
    mixed = int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - third-party transforms draw from the global state
    torch.manual_seed(mixed)


def _zero_shot(model: CLIP) -> Classify:
    return lambda images, candidates: model.logits(images, model.class_features(candidates))


def _device(settings: RunSettings) -> torch.device:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ClbenchError("device=cuda, but no CUDA device is available: use device=cpu")
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C be a `KeyboardInterrupt` again: Lightning exits with 1 and ignores the next."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep Lightning's banners, tips and hints for other use cases off the console."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
