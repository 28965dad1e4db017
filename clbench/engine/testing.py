"""Testing a classifier on the tasks of a benchmark: one row of the accuracy matrix."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clbench.clip.model import CLIP
from clbench.clip.shortcuts.constancy import fingerprint
from clbench.core.data import SequenceData
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow
from clbench.core.settings import RunSettings
from clbench.core.task import ClassTexts, Setting
from clbench.engine.process.failures import explained
from clbench.engine.process.progress import Reporter
from clbench.engine.process.stopping import StopRequest
from clbench.engine.training.callbacks import AccuracyRowCallback
from clbench.engine.training.modules import Classify, EvaluationModule
from clbench.engine.training.step_checkpoints import StopInTest
from clbench.engine.training.trainers import interruptible, make_trainer

SMALL: Final = 8
"""Test images of a task, at most, that is tested in one batch with others."""


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
        groups = self._groups(tasks, scorer)
        loaders: list[Any] = [
            self.sequence.test_loader(group[0], batch_size=batch_size)
            if len(group) == 1
            else DataLoader(cast(Any, [self._joined(group)]), batch_size=None)
            for group in groups
        ]
        reporter.testing(sum(map(self._size, tasks)))
        counter = AccuracyRowCallback(reporter)
        module = EvaluationModule(scorer, classify, benchmark, learned, groups)
        relief = f"evaluation.batch_size (now {batch_size})"
        with (
            explained("testing", relief, self.method, self.log),
            interruptible(stop),
        ):
            callbacks = [counter, StopInTest(stop)]
            trainer = make_trainer(self.settings, device, self.folder, callbacks)
            trainer.test(module, loaders, verbose=False)
        scorer.to(device)
        row = counter.row(self._size)
        found = {benchmark.tasks[t].name: bits for t, bits in row.items()}
        names = (benchmark.tasks[t].name for t in tested)
        return {name: found[name] if name in found else known[name] for name in names}

    def _groups(self, tasks: list[int], scorer: nn.Module) -> list[list[int]]:
        """The tasks in order, small ones that follow one another together as far as a batch goes.

        Only the model's own answers are known not to depend on what else is scored.
        """
        benchmark = self.sequence.benchmark
        alone = isinstance(scorer, Method) and not scorer.answers_with_model
        groups: list[list[int]] = []
        room = 0
        for task in tasks:
            size = self._size(task)
            joins = not alone and benchmark.setting is Setting.TASK_GIVEN and size <= SMALL
            if joins and size <= room:
                groups[-1].append(task)
                room -= size
            else:
                groups.append([task])
                room = self.settings.evaluation.batch_size - size if joins else 0
        return groups

    def _joined(self, group: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Images of all tasks of a group, labels within its classes, and each one's place."""
        images, labels, places, first = [], [], [], 0
        for place, task in enumerate(group):
            tested = self.sequence.test_set(task)
            pictures, answers = tested.__getitems__(range(len(tested)))
            images.append(pictures)
            labels.append(answers + first)
            places.append(torch.full_like(answers, place))
            first += len(self.sequence.benchmark.tasks[task].classes)
        return torch.cat(images), torch.cat(labels), torch.cat(places)

    def _size(self, task: int) -> int:
        return len(self.sequence.test_set(task))
