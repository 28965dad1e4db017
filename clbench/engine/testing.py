"""Testing a classifier on the tasks of a benchmark: one row of the accuracy matrix."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

from torch import Tensor, nn

from clbench.clip.model import CLIP
from clbench.clip.shortcuts.constancy import fingerprint
from clbench.core.data import SequenceData
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow
from clbench.core.settings import RunSettings
from clbench.core.task import ClassTexts
from clbench.engine.process.failures import explained
from clbench.engine.process.progress import Reporter
from clbench.engine.process.stopping import StopRequest
from clbench.engine.training.callbacks import AccuracyRowCallback
from clbench.engine.training.modules import Classify, EvaluationModule
from clbench.engine.training.step_checkpoints import StopInTest
from clbench.engine.training.trainers import interruptible, make_trainer


class RowTester:
    """Tests all tasks that have candidates, image by image.

    Args:
        settings: batch size and precision.
        sequence: images of the benchmark's tasks.
        model: the CLIP that is scored with, on its device.
        method: blamed for errors out of its source.
        folder: the run directory.
        log: receives tracebacks.
    """

    def __init__(
        self,
        settings: RunSettings,
        sequence: SequenceData,
        model: CLIP,
        method: Method,
        folder: Path,
        log: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.sequence = sequence
        self.model = model
        self.method = method
        self.folder = folder
        self.log = log
        self._last: tuple[Hashable, int, CorrectRow] | None = None

    def remember(self, learned: int, row: CorrectRow) -> None:
        """Note a row of the model as it is now: while it stays so, its cells are not tested."""
        state = self._state()
        self._last = None if state is None else (state, learned, row)

    def zero_shot(self, reporter: Reporter, stop: StopRequest) -> CorrectRow:
        """The row of the model before any training."""

        def classify(images: Tensor, candidates: ClassTexts) -> Tensor:
            return self.model.logits(images, self.model.class_features(candidates))

        return self._test(0, self.model, classify, reporter, stop, {})

    def learned(self, learned: int, reporter: Reporter, stop: StopRequest) -> CorrectRow:
        """The row after `learned` tasks; cells that cannot have changed are not tested again."""
        known = self._known(learned)
        row = self._test(learned, self.method, self.method.classify, reporter, stop, known)
        self.remember(learned, row)
        return row

    def _state(self) -> Hashable | None:
        """All that decides the answers; None where that could be anything."""
        method = self.method
        same = getattr(method, "model", self.model) is self.model
        return fingerprint(self.model) if same and method.answers_with_model else None

    def _known(self, learned: int) -> CorrectRow:
        """Cells of the last row whose model and candidates are still the same."""
        if self._last is None:
            return {}
        state, before, row = self._last
        if self._state() != state:
            return {}
        benchmark = self.sequence.benchmark
        return {
            task.name: row[task.name]
            for t, task in enumerate(benchmark.tasks)
            if task.name in row
            and benchmark.candidates(before, t) == benchmark.candidates(learned, t)
        }

    def _test(
        self,
        learned: int,
        scorer: nn.Module,
        classify: Classify,
        reporter: Reporter,
        stop: StopRequest,
        known: CorrectRow,
    ) -> CorrectRow:
        """Task name to which of its images are correct; what is known is not tested again."""
        benchmark, device = self.sequence.benchmark, self.model.device
        tested = [t for t in range(len(benchmark)) if benchmark.candidates(learned, t) is not None]
        tasks = [t for t in tested if benchmark.tasks[t].name not in known]
        if not tasks:
            return dict(known)
        batch_size = self.settings.evaluation.batch_size
        loaders = [self.sequence.test_loader(t, batch_size=batch_size) for t in tasks]
        reporter.testing(sum(len(self.sequence.test_set(t)) for t in tasks))
        counter = AccuracyRowCallback(reporter)
        module = EvaluationModule(scorer, classify, benchmark, learned, tasks)
        relief = f"evaluation.batch_size (now {batch_size})"
        with (
            explained("testing", relief, self.method, self.log),
            interruptible(stop),
        ):
            callbacks = [counter, StopInTest(stop)]
            trainer = make_trainer(self.settings, device, self.folder, callbacks)
            trainer.test(module, loaders, verbose=False)
        scorer.to(device)
        found = {benchmark.tasks[t].name: bits for t, bits in counter.row().items()}
        names = (benchmark.tasks[t].name for t in tested)
        return {name: found[name] if name in found else known[name] for name in names}
