"""Reference streams: unpaired images and texts, pass after pass, read when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError, Stopped
from clbench.core.method import Method
from clbench.core.task import Benchmark, Setting, Task
from clbench.datamodules import reference, reference_folders
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.sequence import TaskSequence
from clbench.testing.toys import make_tasks
from tests.engine.rundir.test_resuming import Kill, Killed, Signal, outcome
from tests.small_runs import run_small, write_tasks

SIZE = 16


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images in two folders, each of a grey of its own, and five texts."""
    root = tmp_path_factory.mktemp("reference")
    for number in range(7):
        path = root / "images" / ("apple" if number % 2 else "red_car") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 24, 3), 10 * number, dtype=np.uint8)).save(path)
    (root / "texts.txt").write_text("one\ntwo\n\n  three \nfour\nfive\n")
    return root


@pytest.fixture
def sequence() -> TaskSequence:
    toys = make_tasks(3, 4)
    sets = [ImageTensors(data.images, data.labels) for _, data in toys]
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "given", tuple(task for task, _ in toys))
    return TaskSequence(benchmark, lambda t: (sets[t], sets[t]), image_size=SIZE)


def greys(images: Tensor) -> list[int]:
    """Which images of the folder these are."""
    assert images.dtype == torch.uint8
    assert images.shape[1:] == (3, SIZE, SIZE)
    return (images[:, 0, 0, 0] // 10).tolist()


def test_passes_are_endless_and_each_has_every_image_and_text_once(
    sequence: TaskSequence, sources: Path
) -> None:
    stream = sequence.reference_stream(0, str(sources / "images"), str(sources / "texts.txt"), 3)
    images = [n for step in range(14) for n in greys(stream.images(step, 3))]
    texts = [text for step in range(10) for text in stream.texts(step, 2)]
    passes = [images[i : i + 7] for i in range(0, len(images), 7)]
    assert all(sorted(numbers) == list(range(7)) for numbers in passes)
    assert len({tuple(numbers) for numbers in passes}) > 1, "every pass has an order of its own"
    words = {"one", "two", "three", "four", "five"}
    assert all(set(texts[i : i + 5]) == words for i in range(0, len(texts), 5))


def test_images_and_texts_are_not_paired(sequence: TaskSequence, sources: Path) -> None:
    """Though each image of a folder has a caption: which text it meets is left to chance."""
    folder = str(sources / "images")
    stream = sequence.reference_stream(0, folder, folder, 0)
    seen = Counter(
        (grey % 2, text)
        for step in range(20)
        for grey, text in zip(greys(stream.images(step, 7)), stream.texts(step, 7), strict=True)
    )
    assert len(seen) == 4
    assert {text for _, text in seen} == {"a photo of an apple", "a photo of a red car"}


def test_what_a_step_gets_depends_on_its_number_alone(
    sequence: TaskSequence, sources: Path
) -> None:
    def stream(seed: int = 3) -> reference.Stream:
        arguments = str(sources / "images"), str(sources / "texts.txt"), seed
        return sequence.reference_stream(1, *arguments)

    whole, late = stream(), stream()
    for step in range(6):
        whole.images(step, 4)
        whole.texts(step, 4)
    assert torch.equal(whole.images(6, 4), late.images(6, 4))
    assert whole.texts(6, 4) == late.texts(6, 4)
    orders = {tuple(greys(stream(seed).images(0, 7))) for seed in range(4)}
    assert len(orders) > 1


def test_hashes_cover_what_is_read(sequence: TaskSequence, tmp_path: Path) -> None:
    images, texts = tmp_path / "images", tmp_path / "texts.txt"
    images.mkdir()

    def hashes(*sources: object) -> dict[str, str]:
        return TaskSequence(
            sequence.benchmark, sequence._load, image_size=SIZE, cache=Cache(tmp_path / "cache")
        ).reference_hashes(*map(str, sources))

    def picture(name: str, grey: int) -> None:
        Image.new("RGB", (20, 20), (grey, grey, grey)).save(images / name, "BMP")

    picture("a.png", 1)
    texts.write_text("one\ntwo\n")
    first = hashes(images, texts)
    (images / "notes.txt").write_text("no image")
    texts.write_text("one\n\n  two")
    assert hashes(images, texts) == first, "nothing else is read than before"
    assert hashes("task", "benchmark") == {}
    assert hashes("task", texts) == {"texts": first["texts"]}
    seen = {first["images"]}
    for name, grey in (("a.png", 2), ("b.png", 2), ("b.png", 3)):
        picture(name, grey)
        seen.add(hashes(images, "task")["images"])
    assert len(seen) == 4
    texts.write_text("two\none\n")
    assert hashes("task", texts) != {"texts": first["texts"]}


def test_files_are_read_when_they_are_needed(
    sequence: TaskSequence, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = reference_folders.read_image

    def counting(path: Path, size: int) -> Tensor:
        opened.append(path)
        return read(path, size)

    monkeypatch.setattr(reference_folders, "read_image", counting)
    stream = sequence.reference_stream(0, str(sources / "images"), str(sources / "texts.txt"), 3)
    assert stream.nbytes == 7 * 3 * SIZE**2 + len("onetwothreefourfive")
    assert stream.source == f"{sources / 'images'}, texts: {sources / 'texts.txt'}"
    assert opened == []
    stream.texts(0, 5)
    assert opened == []
    stream.images(0, 3)
    assert len(opened) == 3
    stream.images(9, 2)
    assert len(opened) == 5


def test_images_and_captions_of_the_task_or_the_benchmark_can_be_streamed(
    sequence: TaskSequence,
) -> None:
    stream = sequence.reference_stream(1, "task", "task", 0)
    drawn = {image.numpy().tobytes() for step in range(4) for image in stream.images(step, 6)}
    assert drawn == {image.numpy().tobytes() for image in sequence.train_set(1).images}
    prompts = sequence.benchmark.tasks[1].classes.training_prompts
    assert set(stream.texts(0, len(prompts))) == set(prompts)
    assert stream.all_texts == prompts
    assert stream.nbytes == 0, "nothing comes from elsewhere"
    with pytest.raises(ClbenchError, match="has no reference data of its own"):
        sequence.reference_stream(1, "benchmark", "task", 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot read the texts in"), ("\n  \n", "no texts in .*: expected one per line")],
)
def test_a_source_that_has_nothing_is_refused(
    sequence: TaskSequence, tmp_path: Path, content: str | None, expected: str
) -> None:
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ClbenchError, match=expected):
        sequence.reference_stream(0, "task", str(file), 0)


class Aligning(Method):
    """Pulls reference images and unpaired texts together, some in every step."""

    name = "aligning"
    paper = "https://example.org"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images", "reference-texts"})
    transient: ClassVar[frozenset[str]] = frozenset({"stream"})

    steps: Tensor

    def __init__(
        self,
        *,
        images: Annotated[str, Field(description="Source of the images.")] = "task",
        texts: Annotated[str, Field(description="Source of the texts.")] = "task",
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.stream = data.reference_stream(self.images, self.texts, seed=5)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        step = int(self.steps)
        texts = self.model.text_features(self.model.tokenize(self.stream.texts(step, 3)))
        return {"alignment": -self.model.logits(self.stream.images(step, 3), texts).mean()}

    def after_step(self) -> None:
        self.steps += 1


def test_a_method_goes_on_in_its_stream_where_it_stopped(sources: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    options = {
        "method__images": str(sources / "images"),
        "method__texts": str(sources / "texts.txt"),
        "train__steps": 6,
    }
    whole = run_small(Aligning, tasks, tmp_path / "whole", **options)
    assert whole.data.reference == f"{sources / 'images'}, texts: {sources / 'texts.txt'}"
    cut = {**options, "checkpoint_every__steps": 2}
    with pytest.raises(Killed):
        run_small(Aligning, tasks, tmp_path / "cut", reporter=Kill(task=0, step=4), **cut)
    with pytest.raises(Stopped):
        run_small(Aligning, tasks, tmp_path / "cut", reporter=Signal(task=1, step=2), **cut)
    run_small(Aligning, tasks, tmp_path / "cut", **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
