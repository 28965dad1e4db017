"""The sequence on which settings are searched: few tasks, and no test image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clbench import config
from clbench.core.errors import ClbenchError
from clbench.datamodules.folder import tasks as folder_tasks
from clbench.datamodules.mini.domains import TASKS
from clbench.datamodules.mini.sequence import task_order, tasks
from clbench.datamodules.splits import validation_indices
from clbench.inputs import build_sequence
from tests.small_runs import write_tasks


def test_a_fifth_of_every_class_is_drawn_and_the_rest_is_kept() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    kept, drawn = validation_indices(labels)
    assert sorted(kept + drawn) == list(range(18))
    assert np.bincount(labels[drawn], minlength=4).tolist() == [2, 1, 1, 0]
    assert validation_indices(labels) == (kept, drawn)


def test_validation_images_are_training_images_that_are_not_trained_on() -> None:
    whole = tasks(quick=True)
    narrow = whole.narrowed(2, validation=True)
    assert [task.name for task in narrow.benchmark.tasks] == list(TASKS[:2])
    train, test, all_of_it = (
        {image.numpy().tobytes() for image in images.__getitems__(range(len(images)))[0]}
        for images in (narrow.train_set(0), narrow.test_set(0), whole.train_set(0))
    )
    assert train | test == all_of_it
    assert not train & test
    assert narrow.test_set(0).digest() != whole.test_set(0).digest()


def test_without_validation_the_first_tasks_are_what_they_were() -> None:
    whole = tasks(quick=True)
    narrow = whole.narrowed(3)
    assert len(narrow.benchmark) == 3
    assert narrow.benchmark.tasks[0].count == 3
    for index in range(3):
        assert narrow.test_set(index).digest() == whole.test_set(index).digest()
        assert narrow.train_set(index).digest() == whole.train_set(index).digest()


def test_more_tasks_than_there_are_cannot_be_asked_for() -> None:
    with pytest.raises(ClbenchError, match="first_tasks=12: 'mini' has 11 tasks"):
        tasks().narrowed(12)


def test_images_on_disk_are_divided_likewise(tmp_path: Path) -> None:
    write_tasks(tmp_path, images=10)
    whole = folder_tasks(path=str(tmp_path), image_size=32, data_root=str(tmp_path / "data"))
    narrow = whole.narrowed(1, validation=True)
    train, test = narrow.train_set(0), narrow.test_set(0)
    assert (len(train), len(test)) == (16, 4)
    images = {x.numpy().tobytes() for x in whole.train_set(0).__getitems__(range(20))[0]}
    for part in (train, test):
        pixels, labels = part.__getitems__(range(len(part)))
        assert {x.numpy().tobytes() for x in pixels} <= images
        assert labels.bincount().tolist() == [len(part) // 2] * 2
        images -= {x.numpy().tobytes() for x in pixels}
    assert not images


def test_settings_reach_the_sequence() -> None:
    overrides = {"first_tasks": 2, "tested_on": "validation"}
    settings, _ = config.resolve("finetune", "mini", overrides=overrides, quick=True)
    sequence = build_sequence(settings, 32)
    assert len(sequence.benchmark) == 2
    assert len(sequence.train_set(0)) + len(sequence.test_set(0)) == 128


def test_the_order_of_mini_can_be_chosen() -> None:
    assert task_order("alphabetical") == (TASKS, "alphabetical")
    one, name = task_order("random-1")
    assert name == "random-1"
    assert sorted(one) == list(TASKS)
    assert one != TASKS
    assert one != task_order("random-2")[0]
    sequence = tasks(order=["digits", "arrows"], quick=True)
    assert [task.name for task in sequence.benchmark.tasks] == ["digits", "arrows"]
    assert sequence.test_set(1).digest() == tasks(quick=True).test_set(0).digest()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("random", "unknown benchmark.order 'random'"),
        (["digit"], "did you mean 'digits'"),
        (["digits", "digits"], "each once"),
        ([], "one task or more"),
    ],
)
def test_an_order_of_mini_that_does_not_exist_is_refused(
    order: str | list[str], message: str
) -> None:
    with pytest.raises(ClbenchError, match=message):
        task_order(order)
