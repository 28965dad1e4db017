"""The contract finds methods that would get a wrong number, or lose something."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar
from unittest import mock

import pytest
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench import config
from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task
from clbench.methods.finetune import Finetune
from clbench.report.tables.groups import BY_BATCH, comparable_groups
from clbench.report.write import write_report
from clbench.testing import CHECKS, check_method
from tests.small_runs import run_small, write_tasks


class Sound(Method):
    """Trains the image projection; every class below breaks one promise."""

    name = "sound"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"classification": classification(self.model, batch)}


class BatchMean(Sound):
    """Takes the batch's mean off its features: images of one task share a batch in a test."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        features = self.model.encode_image(images)
        features = F.normalize(features - features.mean(dim=0) / 2, dim=-1)
        return self.model.similarities(features, self.model.class_features(candidates))


class DeclaredBatchMean(BatchMean):
    """The same, and says so."""

    name = "batch-mean"
    decides_by_batch: ClassVar[bool] = True


class BatchRouter(Sound):
    """Keeps a scale per task, and chooses the task that the batch as a whole looks like."""

    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.register_buffer("means", torch.zeros(0, model.network.visual.output_dim))
        let_grow(self, "means")

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        features = [self.model.encode_image(batch.images) for batch in data.batches(8)]
        self.means = torch.cat([self.means, torch.cat(features).mean(dim=0, keepdim=True)])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        logits = super().classify(images, candidates)
        if not len(self.means):
            return logits
        centre = self.model.encode_image(images).mean(dim=0)
        return logits * (1 + (self.means - centre).norm(dim=1).argmin())


class Undocumented(Sound):
    """A hyper-parameter without meaning."""

    def __init__(self, *, strength: Annotated[float, Field(ge=0)] = 1.0) -> None:
        super().__init__()


class Nameless(Sound):
    """Declares something unknown."""

    traits: ClassVar[frozenset[str]] = frozenset({"trains-everything"})


class Lazy(Sound):
    """Trains nothing, without saying so."""

    def prepare(self, model: CLIP) -> None:
        Method.prepare(self, model)


class GrowingUnprepared(Sound):
    """Keeps one prototype per task in a buffer that does not grow with what is loaded."""

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.register_buffer("prototypes", torch.zeros(0, 32))

    def end_task(self, task: Task, data: TaskData) -> None:
        self.prototypes = torch.cat([self.prototypes, torch.ones(1, 32)])


class ForgetsWhatTrains(Sound):
    """From the second task on it trains something else, which a resumed run would not know."""

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))

    def end_task(self, task: Task, data: TaskData) -> None:
        self.learned += 1
        self.model.network.positional_embedding.requires_grad_(True)


class DrawsFromTheGlobalGenerator(Sound):
    """Starts each task with noise that depends on what was drawn before."""

    @torch.no_grad()
    def begin_task(self, task: Task, data: TaskData) -> None:
        proj = self.model.network.visual.proj
        proj.add_(0.01 * torch.randn(proj.shape))


class MovesFrozenWeights(Sound):
    """Writes to weights that it has frozen."""

    @torch.no_grad()
    def after_step(self) -> None:
        self.model.network.positional_embedding.mul_(0.99)


class MovesTheScale(Sound):
    """Trains the logit scale."""

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.model.logit_scale.requires_grad_(True)


class LeavesGradients(Sound):
    """Takes a gradient of its own at the end of a task."""

    def end_task(self, task: Task, data: TaskData) -> None:
        self.loss(next(data.batches(4)))["classification"].backward()


class ChangesAtTheEnd(Sound):
    """Shrinks what it learned when the task ends."""

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        proj = self.model.network.visual.proj
        proj[:, 0] *= 0.5


class LearnsFromTests(Sound):
    """Counts the images it is tested with, which a run does not save in between."""

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.register_buffer("seen", torch.zeros(()))

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        self.seen += len(images)
        return super().classify(images, candidates)


class Softmax(Sound):
    """Normalises over the candidates."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        return super().classify(images, candidates).softmax(dim=1)


class ByPosition(Sound):
    """Prefers the first candidate."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        logits = super().classify(images, candidates)
        logits[:, 0] += 5
        return logits


class RoundsAway(Sound):
    """Takes a small difference of large numbers."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        texts = self.model.class_features(candidates)
        far = self.model.encode_image(images) + 100
        return 100 * (far @ texts.T - 100 * texts.sum(dim=1))


class TakesAll(Sound):
    """Looks at other tasks without saying so."""

    def begin_task(self, task: Task, data: TaskData) -> None:
        data.of_task(0)


class NeedsNothingItNeeds(Sound):
    """Declares a need that it has not."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference-images"})


class Raises(Sound):
    """Fails in a line of its own."""

    def end_task(self, task: Task, data: TaskData) -> None:
        raise KeyError("prototype")


def broken(cls: type[Method], *promises: str) -> dict[str, str]:
    """Which of the promises, or of all, a method breaks, with what is said about each."""
    asked = {name: CHECKS[name] for name in promises or CHECKS}
    with mock.patch.dict(CHECKS, asked, clear=True), pytest.raises(AssertionError) as caught:
        check_method(cls)
    first, *lines = str(caught.value).splitlines()
    assert first == f"method {cls.__name__} breaks its contract:"
    found = dict(line.split(": ", 1) for line in lines)
    assert found.keys() <= CHECKS.keys()
    return found


def test_a_sound_method_passes() -> None:
    check_method(Sound)


@pytest.mark.parametrize(
    ("cls", "promise", "said"),
    [
        (BatchMean, "decides_by_the_image", "or declare decides_by_batch"),
        (BatchRouter, "decides_by_the_image", "learns the task from the test loader"),
        (Undocumented, "declares_its_hyperparameters", "strength has no Field(description=...)"),
        (Nameless, "declares_what_it_is", "traits has 'trains-everything': known are"),
        (Lazy, "learns", "trains-nothing is not declared"),
        (GrowingUnprepared, "resumes_between_tasks", "size mismatch for prototypes"),
        (ForgetsWhatTrains, "resumes_within_a_task", "requires grad before or after the resume"),
        (DrawsFromTheGlobalGenerator, "resumes_between_tasks", "differs from an uninterrupted"),
        (MovesFrozenWeights, "moves_what_requires_grad", "positional_embedding moved but is"),
        (MovesTheScale, "moves_what_requires_grad", "lets logit_scale require grad"),
        (LeavesGradients, "moves_what_requires_grad", "call zero_grad() after a backward pass"),
        (ChangesAtTheEnd, "answers_stay_when_a_task_ends", "declare answers-change-at-end"),
        (LearnsFromTests, "testing_changes_nothing", "classify changed state.seen"),
        (Softmax, "scores_every_candidate", "declare compares-candidates"),
        (ByPosition, "scores_every_candidate", "the order of the candidates changes"),
        (RoundsAway, "works_in_bfloat16", "the answers are not those in float32"),
        (TakesAll, "asks_for_what_it_declares", "all-data without declaring the need"),
        (NeedsNothingItNeeds, "asks_for_what_it_declares", "never asks for it"),
        (Raises, "resumes_between_tasks", "KeyError: 'prototype'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_named(cls: type[Method], promise: str, said: str) -> None:
    assert said in broken(cls, promise)[promise]


def test_the_other_promises_are_kept() -> None:
    """What decides by the batch is found by that check and by no other."""
    assert set(broken(BatchMean)) == {"decides_by_the_image"}


def test_deciding_by_the_batch_is_allowed_if_it_is_declared() -> None:
    check_method(DeclaredBatchMean)


def test_then_its_row_is_marked_and_a_note_says_why(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    results = [
        run_small(cls, tasks, tmp_path / "runs", train__steps=1)
        for cls in (DeclaredBatchMean, Finetune)
    ]
    assert [result.method.decides_by_batch for result in results] == [True, False]
    (group,) = comparable_groups(results)
    (note,) = group.notes
    assert note.startswith(f"{BY_BATCH} Decides by the batch: answers depend on the other images")
    write_report(results, tmp_path / "tables")
    text = (tmp_path / "tables/summary.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [BY_BATCH in row for row in rows if "BatchMean" in row or "batch-mean" in row] == [True]
    assert [BY_BATCH in row for row in rows if "finetune" in row] == [False]
    assert note in text


def test_then_the_batch_size_of_tests_is_part_of_the_run(tmp_path: Path) -> None:
    def identity(cls: type[Method], size: int) -> str:
        settings, _ = config.resolve(cls, "mini", overrides={"evaluation.batch_size": size})
        return settings.fingerprint()

    assert identity(DeclaredBatchMean, 64) != identity(DeclaredBatchMean, 256)
    assert identity(BatchMean, 64) == identity(BatchMean, 256)
    assert identity(Finetune, 64) == identity(Finetune, 256)
