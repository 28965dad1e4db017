from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.reference import folder_pairs, task_pairs
from clbench.datamodules.sequence import StepSampler, TaskSequence
from clbench.datamodules.splits import few_shot_indices


def image_set(size: int = 10, classes: int = 2, seed: int = 0) -> ImageTensors:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageTensors(images, torch.arange(size) % classes)


@pytest.fixture
def sequence() -> TaskSequence:
    tasks = [Task(n, ClassTexts.from_templates(["x", "y"], ["a {}."])) for n in ("one", "two")]
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "given", tuple(tasks))
    return TaskSequence(benchmark, lambda t: (image_set(seed=t), image_set(5, seed=9)))


def test_exactly_the_asked_steps_in_full_batches() -> None:
    batches = list(StepSampler(size=10, batch_size=4, steps=7, seed=0))
    assert [len(b) for b in batches] == [4] * 7
    flat = [i for b in batches for i in b]
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10))


def test_small_sets_give_batches_of_their_own_size() -> None:
    assert [sorted(b) for b in StepSampler(3, 8, 2, 0)] == [[0, 1, 2]] * 2


def test_the_order_depends_on_the_seed_and_can_be_repeated() -> None:
    first, again, other = (list(StepSampler(50, 8, 5, s)) for s in (1, 1, 2))
    assert first == again != other


def test_an_empty_task_is_refused() -> None:
    with pytest.raises(ClbenchError, match="no training images"):
        StepSampler(0, 4, 1, 0)


def test_training_batches_hold_the_images_of_the_task(sequence: TaskSequence) -> None:
    loader = sequence.train_loader(1, batch_size=4, steps=3, seed=0)
    images, labels = next(iter(loader))
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 4, 4), torch.uint8, torch.int64)
    whole = zip(*image_set(seed=1).__getitems__(range(10)), strict=True)
    known = {image.numpy().tobytes(): int(label) for image, label in whole}
    assert [known[i.numpy().tobytes()] for i in images] == labels.tolist()
    assert len(list(loader)) == 3


def test_tasks_are_shuffled_differently(sequence: TaskSequence) -> None:
    orders = [
        [y.tolist() for _, y in sequence.train_loader(t, batch_size=5, steps=4, seed=3)]
        for t in (0, 1)
    ]
    assert orders[0] != orders[1]


def test_a_test_passes_once_in_order(sequence: TaskSequence) -> None:
    batches = list(sequence.test_loader(0, batch_size=2))
    assert [len(y) for _, y in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([x for x, _ in batches]), image_set(5, seed=9).images)


def test_digests_see_pixels_labels_and_order() -> None:
    base = image_set()
    digests = {
        base.digest(),
        base.subset(range(9, -1, -1)).digest(),
        ImageTensors(base.images, 1 - base.labels).digest(),
        image_set(seed=1).digest(),
    }
    assert len(digests) == 4
    assert image_set().digest() == base.digest()


def test_few_shot_draws_k_of_each_class_from_its_own_seed() -> None:
    labels = torch.tensor([0, 1, 2] * 20)
    chosen = few_shot_indices(labels, 5, seed=0, name="toy")
    assert labels[chosen].bincount().tolist() == [5, 5, 5]
    assert chosen == few_shot_indices(labels, 5, seed=0, name="toy")
    assert chosen != few_shot_indices(labels, 5, seed=1, name="toy")


def test_too_few_images_name_the_class() -> None:
    with pytest.raises(ClbenchError, match=r"toy: class 1 has 2 training images.* 3 asked"):
        few_shot_indices(torch.tensor([0, 0, 0, 1, 1]), 3, seed=0, name="toy")


def test_task_pairs_are_training_images_with_training_prompts() -> None:
    images = image_set()
    classes = ClassTexts.from_templates(["x", "y"], ["a {}.", "the {}."])
    pairs = task_pairs(images, classes, count=4, seed=0)
    assert pairs.captions == ("a x.", "a y.")
    assert len(pairs.images) == 4
    assert len(task_pairs(images, classes, count=99, seed=0).images) == 10


def test_folder_pairs_read_classes_from_folders(tmp_path: Path) -> None:
    for name, colour in (("apple_tree", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (20, 10), colour).save(tmp_path / name / f"{i}.png")
    pairs = folder_pairs(str(tmp_path), count=6, seed=0, image_size=8, root=tmp_path)
    assert pairs.captions == ("a photo of a dog", "a photo of an apple tree")
    assert pairs.images.shape == (6, 3, 8, 8)
    for image, label in zip(pairs.images, pairs.labels, strict=True):
        assert image[0].min() == (255 if label == 1 else 0)


def test_reference_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"neither 'task', 'benchmark', .* nor a folder"):
        folder_pairs(str(tmp_path / "missing"), 1, 0, 8, tmp_path)
    with pytest.raises(ClbenchError, match="no images in"):
        folder_pairs(str(tmp_path), 1, 0, 8, tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ClbenchError, match=r"cannot read the image .*bad\.jpg"):
        folder_pairs(str(tmp_path), 1, 0, 8, tmp_path)


def test_a_benchmark_without_pairs_says_what_to_set(sequence: TaskSequence) -> None:
    with pytest.raises(ClbenchError, match=r"method\.reference"):
        sequence.reference_pairs(0, "benchmark", 4, 0)
