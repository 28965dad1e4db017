"""Mixed images of all tasks: fair shares, right labels, and batches that can be gone on with."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.joint import JoinedImages, JointSampler
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.sequence import TaskSequence

SIZES, CLASSES = (30, 6, 12), (3, 2, 4)


def image_set(number: int) -> ImageTensors:
    """Images whose pixels say which task and image they are."""
    size = SIZES[number]
    images = torch.zeros(size, 3, 4, 4, dtype=torch.uint8)
    images[:, 0], images[:, 1] = number, torch.arange(size)[:, None, None]
    return ImageTensors(images, torch.arange(size) % CLASSES[number])


def sequence() -> TaskSequence:
    tasks = tuple(
        Task(f"task{i}", ClassTexts.from_templates([f"{i}-{c}" for c in range(count)], ["a {}."]))
        for i, count in enumerate(CLASSES)
    )
    benchmark = Benchmark("joined", 1, Setting.TASK_GIVEN, "only", tasks)
    return TaskSequence(benchmark, lambda task: (image_set(task), image_set(task)))


def batches(start: int = 0, share: tuple[int, int] = (0, 1)) -> list[tuple[Tensor, Tensor]]:
    loader = sequence().joint_loader(
        batch_size=8, steps=[20, 20, 10], seed=3, start=start, share=share
    )
    return list(loader)


def test_every_image_has_the_label_of_its_class_in_the_benchmark() -> None:
    found = batches()
    assert len(found) == 50
    for images, labels in found:
        assert len(images) == len(labels) == 8
        tasks, numbers = images[:, 0, 0, 0].long(), images[:, 1, 0, 0].long()
        first = torch.tensor([0, 3, 5])[tasks]
        assert torch.equal(labels, first + numbers % torch.tensor(CLASSES)[tasks])
    mixed = [len(images[:, 0, 0, 0].unique()) for images, _ in found]
    assert max(mixed) == 3


def test_tasks_are_seen_in_proportion_to_their_steps_whatever_their_size() -> None:
    steps = [400, 400, 200]
    drawn = torch.tensor(list(JointSampler(SIZES, steps, 10, seed=0)))
    counts = torch.histc(drawn.float(), bins=48, min=0, max=48)
    parts = torch.stack([part.sum() for part in counts.split(SIZES)])
    torch.testing.assert_close(parts, torch.tensor([4000.0, 4000, 2000]), atol=250, rtol=0)
    # Within a task every image comes once per pass.
    assert all(part.max() - part.min() <= 1 for part in counts.split(SIZES))


def test_batches_go_on_where_they_stopped_and_are_shared_among_processes() -> None:
    whole = batches()
    for (images, labels), expected in zip(batches(start=30), whole[30:], strict=True):
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])
    for i, (images, _) in enumerate(batches(share=(1, 2))):
        assert torch.equal(images, whole[i][0][1::2])


def test_images_are_read_by_position_where_they_are_cropped() -> None:
    class Noting:
        """Answers with what it was asked for."""

        def __init__(self, size: int) -> None:
            self.size = size

        def __len__(self) -> int:
            return self.size

        def __getitems__(self, items: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
            return torch.tensor(items), torch.zeros(len(items), dtype=torch.int64)

    joined = JoinedImages([Noting(5), Noting(4)], [0, 2])  # type: ignore[list-item]
    items, labels = joined.__getitems__([(70, 6), (71, 0), (72, 8)])
    assert items.tolist() == [[70, 1], [71, 0], [72, 3]]
    assert labels.tolist() == [2, 0, 2]
