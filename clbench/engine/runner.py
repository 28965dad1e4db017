"""Runs one method over one task sequence."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clbench.clip.model import CLIP
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow, drop_rows, write_row
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import Tracker
from clbench.core.settings import RunSettings
from clbench.core.task import Setting
from clbench.engine.probing import Probes, Probing
from clbench.engine.process.failures import explained
from clbench.engine.process.guarded_trackers import GuardedTrackers
from clbench.engine.process.progress import Reporter, row_text
from clbench.engine.process.randomness import exact_kernels, seed_everything
from clbench.engine.process.stopping import StopRequest
from clbench.engine.process.world import ALONE, World
from clbench.engine.rundir import provenance
from clbench.engine.rundir.checkpoints import Checkpoint, DamagedCheckpointError, Position
from clbench.engine.rundir.costs import reset_peak_memory
from clbench.engine.rundir.directory import RunDirectory
from clbench.engine.rundir.provenance import Inputs, reference_sources
from clbench.engine.rundir.recording import Recorder
from clbench.engine.rundir.resuming import (
    Resume,
    differences,
    find_resume,
    require_same_inputs,
    resume_at,
)
from clbench.engine.rundir.zeroshot import ZeroShotCache
from clbench.engine.testing import RowTester
from clbench.engine.training.allocator import freed_memory_kept, give_back
from clbench.engine.training.attributes import Attributes, drop_transient
from clbench.engine.training.callbacks import LossCallback
from clbench.engine.training.compiling import compiled
from clbench.engine.training.contract import FrozenWeights, check_begun, check_ended
from clbench.engine.training.footprints import measured, state_bytes
from clbench.engine.training.method_data import MethodData
from clbench.engine.training.modules import TrainingModule
from clbench.engine.training.step_checkpoints import StepCheckpoints, train_only, trained_names
from clbench.engine.training.stretches import stretch_of_all, stretch_of_task
from clbench.engine.training.trainers import (
    choose_device,
    interruptible,
    make_trainer,
    quiet_libraries,
)

Publish = Callable[[RunResult, Path], None]


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
        world: the processes that train together; only the one that leads tests and writes.
        probes: what is measured at every row besides accuracies.
    """

    def __init__(  # noqa: PLR0913 - everything a run is made of, once
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
        world: World = ALONE,
        probes: Probes | None = None,
    ) -> None:
        self.settings = settings
        self.sequence = sequence
        self.model = model
        self.method = method
        self.directory = directory
        self.reporter = reporter
        self.zero_shot = zero_shot
        self.publish = publish
        self.world = world
        self.trackers = GuardedTrackers((), reporter.note)
        self.benchmark = sequence.benchmark
        if method.disjoint_classes and self.benchmark.setting is Setting.DOMAIN_INCREMENTAL:
            raise ClbenchError(
                f"method {method.name!r} takes the classes of a task to be new, and in the "
                f"domain-incremental benchmark {self.benchmark.name!r} all tasks have the same ones"
            )
        self.device = choose_device(settings)
        sources = reference_sources(method.needs, method.hyperparameters())
        inputs = Inputs.of(model, sequence, sources)
        self.recorder = Recorder(settings, inputs, self.device, world.starter)
        self.tester = RowTester(settings, sequence, model, method, directory.path, directory.log)
        self.stop = StopRequest()
        self.probing = Probing(
            probes or Probes(),
            settings,
            sequence,
            model,
            reporter,
            self._log,
            self.stop.check,
        )
        self.attributes: Attributes
        self.backbone = state_bytes(model)

    def run(self, trackers: Sequence[Tracker] = ()) -> RunResult:
        """Run what is missing and return the finished result.

        Args:
            trackers: receive the numbers as the run goes on; one that fails is left out.

        Raises:
            ClbenchError: the loss is not finite, the method breaks its contract, data or disk
                fail. What is finished is kept.
            Stopped: a signal asked for it; the state is saved.
        """
        self.trackers = GuardedTrackers(trackers, self.reporter.note)
        self.model.to(self.device)
        self.recorder.nodes = self.world.gather(socket.gethostname())
        resume = self._resume()
        done = 0 if resume is None else resume.position.learned
        self.reporter.begin(self._title(), [t.name for t in self.benchmark.tasks], done)
        where = resume or "from the start"
        self.directory.log(f"{provenance.timestamp()} {self._title()}, {where}")
        result: RunResult | None = None
        try:
            with self._surroundings():
                result = self._run(resume)
        finally:
            self.reporter.end()
            self.trackers.end(result is not None and result.matrix.complete)
        self.directory.seal()
        return result

    def follow(self) -> None:
        """Train along with the process that leads; write and show nothing."""
        self.model.to(self.device)
        self.world.gather(socket.gethostname())
        position = self.world.told(None)
        resume = None if position is None else resume_at(self.directory, position)
        self.world.wait()
        with self._surroundings():
            self._train_along(resume)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What holds while a process trains: signals, kernels, memory, compiled blocks."""
        with (
            self.stop,
            quiet_libraries(),
            exact_kernels(self.settings.deterministic),
            freed_memory_kept(self.device),
            compiled(self.model, self.settings.compile, self.reporter.note),
        ):
            yield

    def _resume(self) -> Resume | None:
        """What to go on from, after a look at whether it is the same run."""
        if owner := self.directory.dead_owner:
            self.reporter.note(
                f"took over from {owner}, which died without releasing the directory"
            )
        resume = find_resume(self.directory, self.reporter.note)
        self.world.told(None if resume is None else resume.position)
        self.world.wait()  # until all have read it
        if resume is None:
            return None
        require_same_inputs(resume.result, self.recorder.inputs, self.directory.path)
        now = provenance.collect(self.device, type(self.method))
        if changed := differences(resume.result, now):
            self.reporter.note(
                f"resuming {resume} with other {', '.join(changed)} than before: numbers may "
                "differ in the last digits from those of an uninterrupted run"
            )
        elif resume.position.step:
            self.reporter.note(f"resuming {resume}")
        return resume

    def _run(self, resume: Resume | None) -> RunResult:
        reset_peak_memory(self.device)
        self.directory.save_settings(self.settings)
        self._forget(None if resume is None else resume.position)
        if resume is not None:
            self.recorder.probes.load(resume.result.probes, resume.matrix.learned)
        with self._probes():
            self.probing.start()
        matrix = self._row_zero() if resume is None else resume.matrix
        self._prepare(resume)
        result = self._save(matrix)
        self.trackers.begin(result, self.directory.path)
        if resume is not None and resume.untested:
            result = self._measure(matrix, resume.position.learned)
        within = resume.checkpoint if resume is not None and resume.position.step else None
        for task in range(result.matrix.learned, len(self.benchmark)):
            self.stop.check()
            self._learn(task, within)
            within = None
            self._checkpoint(Position(task + 1), None)
            self.stop.check()
            result = self._measure(result.matrix, task + 1)
        self.directory.checkpoints.keep_only(Position(len(self.benchmark)))
        return result

    def _train_along(self, resume: Resume | None) -> None:
        """What `_run` does in a process that follows: everything but testing and writing."""
        self._prepare(resume)
        first = 0 if resume is None else resume.position.learned
        within = resume.checkpoint if resume is not None and resume.position.step else None
        for task in range(first, len(self.benchmark)):
            self._learn(task, within)
            within = None

    def _prepare(self, resume: Resume | None) -> None:
        with self._overhead("preparing"):
            seed_everything(self.settings.seed, 0)
            self.method.prepare(self.model)
            self.method.to(self.device)
        self.attributes = Attributes(self.method)
        if resume is not None:
            self._restore(resume)

    def _row_zero(self) -> AccuracyMatrix:
        """An empty matrix with the zero-shot row, tested or taken from an earlier run."""
        self.model.eval()  # as later rows find it
        self.recorder.ranks.measure(0, self.model)
        matrix = AccuracyMatrix.empty(
            tasks=[task.name for task in self.benchmark.tasks],
            counts=[len(self.sequence.test_set(t)) for t in range(len(self.benchmark))],
            setting=self.benchmark.setting,
        )
        correct = self.zero_shot.load()
        if correct is None:
            with self.recorder.stopwatch.measure("evaluation"):
                correct = self.tester.zero_shot(self.reporter, self.stop)
            self.zero_shot.save(correct)
        self.tester.remember(0, correct)
        self._probe(0, None)
        return self._record(matrix, 0, correct)

    def _learn(self, task: int, within: Checkpoint | None) -> None:
        """Train on one task, between the method's begin and end hooks.

        Args:
            task: index of the task.
            within: where to go on in the middle of it.
        """
        spec = self.benchmark.tasks[task]
        seed_everything(self.settings.seed, task + 1)
        augmentation = self.settings.train.augmentation
        data = MethodData(self.sequence, task, self.model.tokenize, augmentation, self.method.needs)
        with self._probes():
            self.probing.before_task(task, self.method)
        self.attributes.mark()
        with self._overhead(f"beginning {spec.name}"):
            self.method.train()
            self.method.begin_task(spec, data)
            self.world.agree(self.method)
        data.training_begins()
        if within is not None:
            self._restore_within(within)
        check_begun(self.method, spec.name)
        trainable = self.method.trainable_parameters()
        if trainable and not (task and "trains-at-once" in self.method.traits):
            frozen = FrozenWeights(self.method)
            self._fit(task, data, None if within is None else within.training)
            frozen.check(spec.name)
        with self._overhead(f"ending {spec.name}"):
            self.method.eval()
            self.method.end_task(spec, data)
        check_ended(self.method, spec.name)
        drop_transient(self.method)
        self.attributes.require_kept(f"while learning {spec.name}")
        if trainable and self.world.leads:
            self.recorder.ranks.measure(task + 1, self.model)
        footprint = replace(measured(self.method, self.backbone), trainable=trainable)
        self.recorder.task_learned(spec.name, footprint, data.reference_used, data.held_out)

    def _fit(self, task: int, data: MethodData, resumed: Mapping[str, Any] | None) -> None:
        settings, sequence, tokenize = self.settings, self.sequence, self.model.tokenize
        if "trains-at-once" in self.method.traits:
            name = "all tasks"
            stretch = stretch_of_all(settings, sequence, tokenize)
        else:
            name = self.benchmark.tasks[task].name
            stretch = stretch_of_task(settings, sequence, task, data, tokenize)
        total = stretch.plan.steps
        done = 0 if resumed is None else resumed["losses"]["steps"]
        begun = Attributes(self.method)
        loader = stretch.loader(done, (self.world.rank, self.world.size))
        losses = LossCallback(
            self.reporter,
            lambda values: self._log_losses(task, values),
            self._log,
            total,
            world=self.world,
        )

        def save(step: int, state: Mapping[str, Any]) -> None:
            begun.require_kept(f"while training on {name}")
            self._checkpoint(Position(task, step), state)

        steps = StepCheckpoints(
            self.settings.checkpoint_every,
            self.stop,
            losses,
            total,
            save,
            resumed,
            self.world,
        )
        weight = self.world.weight(stretch.images)
        module = TrainingModule(
            self.method, stretch.prompts, stretch.plan, name, stretch.tasks, weight
        ).train()
        self.reporter.training(task, total - done)
        relief = f"train.batch_size (now {settings.train.batch_size})"
        with (
            self.recorder.stopwatch.measure("training"),
            explained(f"training on {name}", relief, self.method, self._log),
            interruptible(self.stop),
        ):
            folder, limit = self.directory.path, total - done
            trainer = make_trainer(
                self.settings,
                self.device,
                folder,
                [losses, steps],
                self.world,
                max_steps=limit,
            )
            trainer.fit(module, loader)
        if losses.steps < total:
            self.stop.check()
        self.recorder.steps += losses.steps
        self.method.zero_grad(set_to_none=True)
        self.method.to(self.device)

    def _log(self, text: str) -> None:
        if self.world.leads:
            self.directory.log(text)

    def _log_losses(self, task: int, values: Mapping[str, Any]) -> None:
        if not self.world.leads:
            return
        self.directory.record({"task": task + 1, **values})
        step = self.recorder.steps + values["step"]
        self.trackers.losses(step, {k: v for k, v in values.items() if k != "step"})

    def _measure(self, matrix: AccuracyMatrix, learned: int) -> RunResult:
        """Test after `learned` tasks and save the result with the new row."""
        with self.recorder.stopwatch.measure("evaluation"):
            correct = self.tester.learned(learned, self.reporter, self.stop)
        self._probe(learned, self.method)
        result = self._save(self._record(matrix, learned, correct))
        self.trackers.row(result)
        return result

    def _probe(self, learned: int, method: Method | None) -> None:
        """Have the probes look at the model after `learned` tasks."""
        with self._probes():
            found = self.probing.measure(learned, method)
        for name, one in found.items():
            self.recorder.probes.note(learned, name, one.values, one.seconds, one.data)

    @contextmanager
    def _probes(self) -> Iterator[None]:
        """What holds while probes look: what they cost is not the run's."""
        if not self.probing:
            yield
            return
        with self.recorder.apart():
            yield
            give_back(self.device)

    def _record(self, matrix: AccuracyMatrix, learned: int, correct: CorrectRow) -> AccuracyMatrix:
        """Keep a finished row image by image, show and log it, and add it to the matrix."""
        write_row(self.directory.path, learned, correct)
        names = [task.name for task in self.benchmark.tasks]
        row = {t: float(correct[name].mean()) for t, name in enumerate(names) if name in correct}
        if row:
            self.reporter.row(learned, row)
            self.directory.log(f"{provenance.timestamp()} {row_text(names, learned, row)}")
        return matrix.with_row(learned, [row.get(t, float("nan")) for t in range(len(names))])

    def _restore(self, resume: Resume) -> None:
        """Put method and counts where they were, or where the unfinished task began."""
        if resume.untested:
            self._show_before(resume.position.learned - 1)
        checkpoint = resume.checkpoint if not resume.position.step else resume.start
        if checkpoint is not None:
            self.method.load_state_dict(dict(checkpoint.method))
        self.recorder.restore(resume.counters, resume.position.step, str(resume))
        if resume.costs_are_newer:
            self.recorder.restore_costs(resume.result.cost)

    def _show_before(self, task: int) -> None:
        """Show the probes the model before a task that an earlier process learned."""
        if not self.probing:
            return
        if task:
            try:
                before = self.directory.checkpoints.load(Position(task))
            except DamagedCheckpointError:  # what depends on it stays unknown
                return
            self.method.load_state_dict(dict(before.method))
        with self._probes():
            self.probing.before_task(task, self.method)

    def _restore_within(self, checkpoint: Checkpoint) -> None:
        """After `begin_task` was called once more, put the method where the checkpoint found it."""
        assert checkpoint.training is not None
        self.method.load_state_dict(dict(checkpoint.method))
        train_only(self.method, checkpoint.training["trained"])

    def _checkpoint(self, position: Position, training: Mapping[str, Any] | None) -> None:
        """Save method, counts and, within a task, the trainer's state."""
        if not self.world.leads:
            return
        self.directory.require()
        self.directory.sync_records()
        if training is not None:
            training = {**training, "trained": trained_names(self.method)}
        counters = self.recorder.counters(position.step)
        state = self.method.state_dict()
        self.directory.checkpoints.save(Checkpoint(position, state, counters, training))

    def _forget(self, position: Position | None) -> None:
        """Drop what lies beyond the position from which the run goes on."""
        self.directory.unseal()
        self.directory.checkpoints.drop_after(position)
        self.directory.drop_records(position or Position(0))
        drop_rows(self.directory.path, -1 if position is None else position.learned)

    def _save(self, matrix: AccuracyMatrix) -> RunResult:
        """Write the result so far."""
        result = self.recorder.result(matrix, self.method)
        self.directory.save_result(result)
        self.publish(result, self.directory.path)
        return result

    @contextmanager
    def _overhead(self, activity: str) -> Iterator[None]:
        """Time a hook of the method, and explain where it fails."""
        relief = f"train.batch_size (now {self.settings.train.batch_size})"
        with (
            self.recorder.stopwatch.measure("overhead"),
            explained(activity, relief, self.method, self._log),
        ):
            yield

    def _title(self) -> str:
        name, benchmark = self.settings.method.name, self.benchmark
        smoke = ", quick: numbers mean nothing" if self.settings.quick else ""
        return f"{name} on {benchmark.name} v{benchmark.version} (seed {self.settings.seed}{smoke})"
