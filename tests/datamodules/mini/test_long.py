"""The benchmark `mini-long`: many tasks, each in a style of its own, the same for the same seed."""

import hashlib
from pathlib import Path

import pytest

from clbench import api
from clbench.core.task import Setting
from clbench.datamodules.mini import long
from clbench.datamodules.mini import sequence as mini
from clbench.datamodules.mini.domains import DOMAINS, TASKS
from clbench.datamodules.mini.long import CLASSES, COUNT, SIZES, draw_tasks

GOLDEN = "ece28541acc39b56"
"""Of what is drawn for seed 0."""
FIRST_TASK = "0c4a7f995491522c"
"""Of the training images of the first task, in which nothing is printed."""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path))


def test_every_turn_has_all_domains_and_every_task_another_style() -> None:
    drawn = draw_tasks(0)
    assert len(drawn) == COUNT
    for turn in range(COUNT // len(TASKS)):
        part = drawn[turn * len(TASKS) : (turn + 1) * len(TASKS)]
        assert sorted(one.domain for one in part) == list(TASKS)
    orders = {tuple(one.domain for one in drawn[i : i + 11]) for i in range(0, 198, 11)}
    assert len(orders) == 18
    assert len({one.filter for one in drawn}) == COUNT
    assert len({(one.domain, one.labels) for one in drawn}) > COUNT / 2
    assert len({one.first for one in drawn}) == COUNT


def test_a_task_depends_on_seed_and_number_only() -> None:
    assert draw_tasks(0, 30) == draw_tasks(0)[:30]
    others = draw_tasks(1, 30)
    assert not {one.filter for one in others} & {one.filter for one in draw_tasks(0, 30)}
    digest = hashlib.sha256(repr(draw_tasks(0)).encode()).hexdigest()[:16]
    assert digest == GOLDEN, "another draw needs another version"


def test_tasks_have_four_classes_of_their_domain_with_one_prompt_each() -> None:
    benchmark = long.tasks().benchmark
    assert (len(benchmark), benchmark.setting) == (COUNT, Setting.TASK_GIVEN)
    for task in benchmark.tasks[:22]:
        domain = DOMAINS[task.name.partition("-")[0]]
        assert len(set(task.classes.names)) == CLASSES
        assert set(task.classes.names) <= set(domain.classes)
        assert all(len(prompts) == 1 for prompts in task.classes.prompts)
    ids = [i for task in benchmark.tasks for i in task.classes.ids]
    assert ids == list(range(COUNT * CLASSES))


def test_images_are_balanced_fixed_and_apart() -> None:
    sequence = long.tasks()
    train, test = sequence.train_set(0), sequence.test_set(0)
    assert (len(train), len(test)) == (SIZES["train"], SIZES["test"])
    assert train.labels.bincount().tolist() == [16] * 4
    assert test.labels.bincount().tolist() == [2] * 4
    other = long.tasks(rendering="validation").train_set(0)
    images = [{i.numpy().tobytes() for i in part.images} for part in (train, test, other)]
    assert sum(map(len, images)) == len(set.union(*images)) == 136
    assert train.digest()[:16] == FIRST_TASK, "other images need another version"


def test_images_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = long.tasks().train_set(1).digest()
    monkeypatch.setattr(long, "render_classes", lambda *a: pytest.fail("rendered again"))
    assert long.tasks().train_set(1).digest() == first


def test_pictures_are_none_of_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "TRAIN_SIZE", 60)
    monkeypatch.setattr(mini, "TEST_SIZE", 10)
    drawn = draw_tasks(0, 1)[0]
    plain = long.render_classes(drawn.domain, drawn.labels, "train", drawn.first)
    known = mini.tasks().train_set(TASKS.index(drawn.domain)).images
    assert not {i.tobytes() for i in plain} & {i.numpy().tobytes() for i in known}


@pytest.mark.slow
def test_tasks_can_be_learned(tmp_path: Path) -> None:
    settings = {"first_tasks": 6, "train.lr": 1e-3}
    result = api.run("lora", "mini-long", runs_dir=tmp_path, settings=settings, quiet=True)
    values = result.matrix.values
    learned, before = values[1:].diagonal().mean(), values[0].mean()
    assert learned > before + 0.1
