"""`clbench evaluate`: any CLIP tested on all tasks of a benchmark, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from clbench import config
from clbench.api import note_unknown_words
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.foreign.console import SafeConsole
from clbench.core.results.matrix import ZERO_SHOT, AccuracyMatrix
from clbench.core.results.result import BackboneRecord, BenchmarkRecord
from clbench.core.task import Benchmark, Setting
from clbench.engine.process.progress import QuietReporter, make_reporter
from clbench.engine.process.randomness import seed_everything
from clbench.engine.retesting import measure_probes, measure_row
from clbench.engine.rundir import provenance
from clbench.engine.training.trainers import choose_device
from clbench.inputs import load_inputs, make_probes
from clbench.report.tables.foreign import ForeignMatrix, read_foreign, write_foreign


@dataclass(frozen=True)
class Evaluation:
    """One row of an accuracy matrix, and what it was measured with.

    Attributes:
        backbone: the model tested, with the hash of its weights.
        benchmark: the tasks.
        after: the task that the model is said to have learned last, or ``zero-shot``.
        matrix: in which this row alone is known.
        quick: whether few images were tested, so that the numbers mean nothing.
        digests: hash of the test images and of the prompts of every task.
        origin: versions and hardware.
        probes: what was measured besides accuracies: probe and measure to number.
    """

    backbone: BackboneRecord
    benchmark: BenchmarkRecord
    after: str
    matrix: AccuracyMatrix
    quick: bool
    digests: dict[str, dict[str, str]]
    origin: dict[str, Any]
    probes: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def learned(self) -> int:
        """Which row this is: how many tasks the model is said to have learned."""
        return [ZERO_SHOT, *self.matrix.tasks].index(self.after)

    @property
    def accuracy(self) -> dict[str, float]:
        """Task to fraction of its test images that are correct; tasks without a score are left out.

        In a class-incremental benchmark these are the tasks not learned yet.
        """
        row = self.matrix.values[self.learned].tolist()
        return {t: v for t, v in zip(self.matrix.tasks, row, strict=True) if not math.isnan(v)}

    @property
    def mean(self) -> float:
        """Mean over the tasks."""
        return sum(self.accuracy.values()) / len(self.accuracy)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "benchmark": self.benchmark.model_dump(mode="json"),
            "backbone": self.backbone.model_dump(mode="json"),
            "after": self.after,
            "quick": self.quick,
            "accuracy": self.accuracy,
            "mean": self.mean,
            "images": dict(zip(self.matrix.tasks, self.matrix.counts or (), strict=True)),
            "digests": self.digests,
            "provenance": self.origin,
            **({"probes": self.probes} if self.probes else {}),
        }


def evaluate(
    backbone: str | None = None,
    benchmark: str = "mini",
    *,
    after: str | None = None,
    settings: Mapping[str, Any] | None = None,
    probes: str | Sequence[str] | None = None,
    quick: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Test a CLIP on every task of a benchmark, as runs are tested after each task.

    Args:
        backbone: ``mini``, ``ARCHITECTURE``, ``ARCHITECTURE/TAG``, a weights file or a folder that
            `clbench export` made; that of the benchmark by default.
        benchmark: name.
        after: the task that the model has learned last. In a class-incremental benchmark it decides
            which classes are candidates, and is required; elsewhere it only says which row of the
            accuracy matrix this is (``zero-shot`` by default).
        settings: dotted keys to values, e.g. ``{"benchmark.order": "II", "data_root": "/data"}``.
        probes: what to measure besides accuracies, e.g. ``("gap", "retrieval")``.
        quick: a smoke test whose numbers mean nothing.
        quiet: show no progress.
        console: where progress is shown; standard error by default.

    Raises:
        ClbenchError: a mistake the user can mend.
    """
    given = config.named(backbone, settings, probes=probes)
    untrained = {"train.steps": 1, "train.epochs": None}  # no training image needs decoding
    resolved, cls = config.resolve(
        "zeroshot", benchmark, overrides={**untrained, **given}, quick=quick
    )
    model, sequence = load_inputs(resolved)
    learned = _learned(sequence.benchmark, after)
    reporter = make_reporter(console or SafeConsole(stderr=True), quiet=quiet)
    note_unknown_words(model, sequence.benchmark, reporter)
    for note in sequence.notes:
        reporter.note(note)
    silent = type(reporter) is QuietReporter
    sequence.hash_images(quiet=silent)
    sequence.prepare(resolved.train, quiet=silent)
    watching = make_probes(resolved, model, quiet=silent)
    device = choose_device(resolved)
    inputs = provenance.Inputs.of(model, sequence)
    names = [task.name for task in sequence.benchmark.tasks]
    reporter.begin(f"testing {model.name} on {benchmark}", names, 0)
    try:
        model.to(device)
        seed_everything(resolved.seed, 0)
        method = cls()
        method.prepare(model)
        row = measure_row(resolved, sequence, model, method, Path(), learned, reporter)
        measured = measure_probes(resolved, sequence, model, method, watching, learned, reporter)
    finally:
        reporter.end()
    counts = [len(sequence.test_set(t)) for t in range(len(names))]
    empty = AccuracyMatrix.empty(names, counts, sequence.benchmark.setting)
    values = [float(row[name].mean()) if name in row else float("nan") for name in names]
    return Evaluation(
        BackboneRecord(
            model=inputs.backbone, weights=resolved.backbone.weights, fingerprint=inputs.weights
        ),
        inputs.benchmark,
        ZERO_SHOT if not learned else names[learned - 1],
        empty.with_row(learned, values),
        resolved.quick,
        {
            "test images": {name: inputs.splits[f"{name}/test"] for name in names},
            "prompts": dict(inputs.prompts),
        },
        provenance.collect(device, cls),
        {name: {**one.values, "seconds": round(one.seconds, 3)} for name, one in measured.items()},
    )


def add_row(path: Path, evaluation: Evaluation, name: str = "", source: str = "") -> ForeignMatrix:
    """Put a tested row into a matrix file, which is made if it is missing.

    Args:
        path: a file of the form that `clbench metrics` reads.
        evaluation: holds the row; a row of the same name in the file is replaced.
        name: what the matrix is called in tables; as before, or the file's name, if empty.
        source: where it comes from, likewise.

    Returns:
        The matrix with the row.

    Raises:
        ClbenchError: the file holds other tasks, or cannot be read or written.
    """
    matrix, learned = evaluation.matrix, evaluation.learned
    before = read_foreign(path) if path.exists() else ForeignMatrix(path.stem, "", matrix)
    if (before.matrix.tasks, before.matrix.setting) != (matrix.tasks, matrix.setting):
        raise ClbenchError(
            f"{path} holds the matrix of other tasks, another order or another setting: write "
            "to another file"
        )
    joined = before.matrix.with_row(learned, matrix.values[learned])
    foreign = ForeignMatrix(name or before.name, source or before.source, joined)
    write_foreign(foreign, path)
    return foreign


def _learned(benchmark: Benchmark, after: str | None) -> int:
    """The row of a model that has learned a task last.

    Raises:
        ClbenchError: no such task, or none where one is needed.
    """
    names = [task.name for task in benchmark.tasks]
    if after is None or after == ZERO_SHOT:
        if benchmark.setting is Setting.CLASS_INCREMENTAL:
            raise ClbenchError(
                f"in {benchmark.name} images are scored among the classes learned so far: name the "
                f"task that the model has learned last, e.g. --after {names[-1]!r}"
            )
        return 0
    if after not in names:
        raise unknown_name("task", after, [ZERO_SHOT, *names])
    return names.index(after) + 1
