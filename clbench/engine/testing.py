"""Testing a classifier on the tasks of a benchmark: one row of the accuracy matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from clbench.clip.constancy import Contents, Version, contents, is_function_of_weights, version
from clbench.clip.model import CLIP
from clbench.core.correctness import CorrectRow
from clbench.core.data import SequenceData
from clbench.core.method import Method
from clbench.core.settings import RunSettings
from clbench.core.task import ClassTexts
from clbench.engine.callbacks import AccuracyRowCallback
from clbench.engine.failures import explained
from clbench.engine.modules import Classify, EvaluationModule
from clbench.engine.progress import Reporter
from clbench.engine.step_checkpoints import StopInTest
from clbench.engine.stopping import StopRequest
from clbench.engine.trainers import interruptible, make_trainer


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
        self._last: tuple[Version, Contents, int, CorrectRow] | None = None

    def remember(self, learned: int, row: CorrectRow) -> None:
        """Note a row of the model as it is now: while it stays so, its cells are not tested."""
        current = self._version()
        self._last = None if current is None else (current, self._contents(), learned, row)

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

    def _version(self) -> Version | None:
        """The state of all that decides the answers; None where that could be anything."""
        method = self.method
        if type(method).classify is not Method.classify or not is_function_of_weights([self.model]):
            return None
        return version(self._tensors())

    def _contents(self) -> Contents:
        """By which edits of weights are seen that PyTorch does not count."""
        return contents(self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def _known(self, learned: int) -> CorrectRow:
        """Cells of the last row whose model and candidates are still the same."""
        if self._last is None:
            return {}
        last_version, last_contents, before, row = self._last
        if self._version() != last_version or self._contents() != last_contents:
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
            self.model.frozen(),
            interruptible(stop),
        ):
            callbacks = [counter, StopInTest(stop)]
            trainer = make_trainer(self.settings, device, self.folder, callbacks)
            trainer.test(module, loaders, verbose=False)
        scorer.to(device)
        found = {benchmark.tasks[t].name: bits for t, bits in counter.row().items()}
        names = (benchmark.tasks[t].name for t in tested)
        return {name: found[name] if name in found else known[name] for name in names}
