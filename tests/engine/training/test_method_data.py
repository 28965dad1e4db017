"""A task's images as a method sees them: passes, validation splits, data of other tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor

from clbench.clip.losses import classification
from clbench.clip.model import CLIP
from clbench.core.data import Batch, LabelledImages, TaskData
from clbench.core.errors import ClbenchError, Stopped
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.task import Benchmark, Setting, Task
from clbench.datamodules import folder as folder_benchmark
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.training.method_data import MethodData
from clbench.testing.toys import WordTokenizer, make_tasks
from tests.engine.rundir.test_resuming import Signal, folder, outcome
from tests.small_runs import run_small, write_tasks

TOYS = make_tasks(3, 4, 2)


@pytest.fixture
def sequence() -> TaskSequence:
    """Three tasks of 24 images in memory."""
    sets = [ImageTensors(data.images, data.labels) for _, data in TOYS]
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "given", tuple(task for task, _ in TOYS))
    return TaskSequence(benchmark, lambda t: (sets[t], sets[t]), image_size=32)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks", images=8)


def data_of(
    sequence: TaskSequence, task: int, *needs: str, augmentation: Any = "none"
) -> MethodData:
    tokenizer = WordTokenizer()
    return MethodData(
        sequence, task, lambda texts: tokenizer(list(texts)), augmentation, frozenset(needs)
    )


def read(images: LabelledImages, **options: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of one pass."""
    batches = list(images.batches(5, **options))
    assert [len(batch.labels) for batch in batches[:-1]] == [5] * (len(batches) - 1)
    return torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])


def keys(images: Tensor) -> list[bytes]:
    """Images as values that can be compared and sorted."""
    return [image.numpy().tobytes() for image in images]


def test_a_pass_has_every_image_once_in_fixed_order(sequence: TaskSequence) -> None:
    images, labels = read(data_of(sequence, 1))
    assert torch.equal(images, TOYS[1][1].images)
    assert torch.equal(labels, TOYS[1][1].labels)
    batch = next(data_of(sequence, 1).batches(5))
    prompts = TOYS[1][0].classes.training_prompts
    assert torch.equal(batch.prompts, WordTokenizer()(list(prompts)))


def test_a_seed_gives_a_permutation_that_comes_again(sequence: TaskSequence) -> None:
    data = data_of(sequence, 1)
    fixed, fixed_labels = read(data)
    label_of = dict(zip(keys(fixed), fixed_labels.tolist(), strict=True))
    passes = [read(data, seed=seed) for seed in (0, 1, 0)]
    for images, labels in passes:
        assert sorted(keys(images)) == sorted(keys(fixed))
        assert keys(images) != keys(fixed)
        assert labels.tolist() == [label_of[key] for key in keys(images)]
    first, other, again = (keys(images) for images, _ in passes)
    assert first == again != other


def test_an_augmented_pass_crops_as_training_does(tasks: Path, tmp_path: Path) -> None:
    sequence = folder_benchmark.tasks(path=str(tasks), image_size=32, data_root=str(tmp_path))
    data = data_of(sequence, 0, augmentation="crop")
    plain, labels = read(data)
    (one, found), (two, _) = (read(data, seed=seed, augmented=True) for seed in (1, 2))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found, labels[order])
    difference = (one.float() - plain[order].float()).abs().mean(dim=(1, 2, 3))
    assert (difference > 0).sum() > len(data) / 2, "a crop may be the whole image, but few are"
    assert difference.max() < 60, "and still the same image"
    assert not torch.equal(one.sort(dim=0).values, two.sort(dim=0).values), "crops follow the seed"
    assert torch.equal(one, read(data, seed=1, augmented=True)[0])
    unchanged = read(data_of(sequence, 0), seed=1, augmented=True)[0]
    assert torch.equal(unchanged, plain[order]), "a training without crops has none here either"


def test_images_that_cannot_be_cropped_say_so(sequence: TaskSequence) -> None:
    data = data_of(sequence, 0, augmentation="crop")
    assert len(read(data)[0]) == 24
    with pytest.raises(ClbenchError, match="nothing can be cropped"):
        read(data, augmented=True)


def test_a_validation_split_is_taken_out(sequence: TaskSequence) -> None:
    data = data_of(sequence, 1)
    held = data.validation(0.25, seed=3)
    assert (len(held), len(data)) == (6, 18)
    inside, outside = (set(keys(read(part)[0])) for part in (held, data))
    assert inside | outside == set(keys(TOYS[1][1].images))
    assert not inside & outside
    assert not inside & set(keys(read(data, seed=0)[0]))
    data.training_begins()
    again = data.validation(0.25, seed=3)
    assert keys(read(again)[0]) == keys(read(held)[0]), "the same in end_task"
    loader = sequence.train_loader(1, batch_size=7, steps=20, seed=0, chosen=data.chosen)
    drawn = {key for images, _ in loader for key in keys(images)}
    assert drawn == outside


def test_splits_differ_by_seed_and_task_and_are_hashed(sequence: TaskSequence) -> None:
    hashes = set()
    for task, seed in ((0, 0), (0, 1), (1, 0)):
        data = data_of(sequence, task)
        assert data.held_out is None
        data.validation(0.25, seed)
        assert data.held_out is not None
        hashes.add(data.held_out)
    assert len(hashes) == 3
    once_more = data_of(sequence, 1)
    once_more.validation(0.25, 0)
    assert once_more.held_out in hashes


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, "needs a share > 0"),
        (-0.1, "needs a share > 0"),
        (0.99, "of 24 training images leaves nothing to train on"),
        (1.0, "leaves nothing to train on"),
        (3.0, "leaves nothing to train on"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(
    sequence: TaskSequence, share: float, expected: str
) -> None:
    with pytest.raises(ClbenchError, match=expected):
        data_of(sequence, 0).validation(share)


def test_a_tiny_share_holds_one_image_out(sequence: TaskSequence) -> None:
    assert len(data_of(sequence, 0).validation(1e-6)) == 1


def test_another_split_or_a_late_one_is_refused(sequence: TaskSequence) -> None:
    data = data_of(sequence, 0)
    data.validation(0.25)
    for share, seed in ((0.25, 1), (0.5, 0)):
        with pytest.raises(ClbenchError, match="a task has one validation split"):
            data.validation(share, seed)
    late = data_of(sequence, 0)
    late.training_begins()
    with pytest.raises(ClbenchError, match="must be asked for in begin_task"):
        late.validation(0.25)


def test_data_of_other_tasks_need_a_declaration(sequence: TaskSequence) -> None:
    with pytest.raises(ClbenchError, match="for methods that declare needs"):
        data_of(sequence, 0).of_task(1)
    data = data_of(sequence, 0, "all-data")
    other = data.of_task(1)
    assert keys(read(other, seed=4)[0]) == keys(read(data_of(sequence, 1), seed=4)[0])
    batch = next(other.batches(3))
    assert len(batch.prompts) == 4, "labels and prompts are those of that task"
    held = data.validation(0.25)
    own = set(keys(read(data.of_task(0))[0]))
    assert not own & set(keys(read(held)[0])), "what is held out is held out by this way, too"


def test_reference_data_of_the_task_leave_out_what_is_held_out(sequence: TaskSequence) -> None:
    data = data_of(sequence, 0)
    assert len(data.reference_pairs("task", 99, seed=0).images) == 24
    held = set(keys(read(data.validation(0.25))[0]))
    pairs = data.reference_pairs("task", 99, seed=0)
    stream = data.reference_stream("task", "task", seed=0)
    kept = set(keys(read(data)[0]))
    assert set(keys(pairs.images)) == set(keys(stream.images(0, 18))) == kept
    assert not kept & held


def test_reference_data_from_elsewhere_need_a_declaration(
    sequence: TaskSequence, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    undeclared, images_only = data_of(sequence, 0), data_of(sequence, 0, "reference-images")
    with pytest.raises(ClbenchError, match=r"declare needs = \{'reference-images'\}"):
        undeclared.reference_pairs("benchmark", 5, seed=0)
    for data in (undeclared, images_only):
        with pytest.raises(ClbenchError, match=r"declare needs = \{'reference-texts'\}"):
            data.reference_stream("task", str(texts), seed=0)
    assert data_of(sequence, 0, "reference-texts").reference_stream("task", str(texts), seed=0)


class Careful(Method):
    """Measures how it does on images that it must never train on."""

    name = "careful"
    paper = "https://example.org"
    transient: ClassVar[frozenset[str]] = frozenset({"held"})

    trained_on: ClassVar[dict[str, set[bytes]]] = {}
    held_out: ClassVar[dict[str, set[bytes]]] = {}

    def __init__(
        self, *, share: Annotated[float, Field(ge=0, description="Held out.")] = 0.25
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)
        self.register_buffer("accuracy", torch.zeros(()))

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.held = (task.name, data.validation(self.share))
        self.held_out[task.name] = set(keys(read(self.held[1])[0]))
        self.trained_on.setdefault(task.name, set())

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        self.trained_on[self.held[0]].update(keys(batch.images))
        return {"classification": classification(self.model, batch)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        for batch in data.validation(self.share).batches(4):
            features = self.model.text_features(batch.prompts)
            hits = self.model.logits(batch.images, features).argmax(dim=1) == batch.labels
            self.accuracy += hits.float().mean()


class Late(Careful):
    """Asks for its split when the task is over."""

    name = "late"

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.held = (task.name, None)
        self.trained_on.setdefault(task.name, set())


def test_a_run_never_trains_on_what_is_held_out(tasks: Path, tmp_path: Path) -> None:
    Careful.trained_on.clear()
    options = {"train__steps": 9, "train__batch_size": 4}
    whole = run_small(Careful, tasks, tmp_path / "whole", **options)
    for task in ("task0", "task1"):
        held, trained = Careful.held_out[task], Careful.trained_on[task]
        assert (len(held), len(trained)) == (4, 12)
        assert not held & trained
    recorded = json.loads((folder(tmp_path / "whole") / "result.json").read_text())["data"]
    assert recorded["validation"] == whole.data.validation
    assert set(whole.data.validation) == {"task0", "task1"}

    cut = {**options, "checkpoint_every__steps": 2}
    for reporter in (Signal(task=0, step=4), Signal(task=1, step=3)):
        with pytest.raises(Stopped):
            run_small(Careful, tasks, tmp_path / "cut", reporter=reporter, **cut)
    resumed = run_small(Careful, tasks, tmp_path / "cut", **cut)
    assert resumed.data.validation == whole.data.validation
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_another_split_is_recorded_as_another(tasks: Path, tmp_path: Path) -> None:
    def recorded(share: float) -> Mapping[str, str]:
        runs = tmp_path / str(share)
        run_small(Careful, tasks, runs, method__share=share, train__steps=1)
        return RunResult.load(folder(runs)).data.validation

    first, second = recorded(0.25), recorded(0.5)
    assert all(first[task] != second[task] for task in first)


def test_a_run_refuses_a_split_of_images_that_were_trained_on(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="must be asked for in begin_task"):
        run_small(Late, tasks, tmp_path / "runs")
