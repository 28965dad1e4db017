from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clbench.config import resolve
from clbench.core.errors import ClbenchError
from clbench.core.identity import settings_hash
from clbench.core.task import Setting
from clbench.datamodules.mini import sequence as mini


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small splits in a cache of their own: rendering all takes seconds."""
    monkeypatch.setattr(mini, "TRAIN_SIZE", 60)
    monkeypatch.setattr(mini, "TEST_SIZE", 60)
    monkeypatch.setattr(mini, "REFERENCE_POOL", 40)
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path))
    mini._reference_pool.cache_clear()


def test_eleven_tasks_with_prompts() -> None:
    sequence = mini.tasks()
    benchmark = sequence.benchmark
    assert len(benchmark) == 11
    assert (benchmark.name, benchmark.setting) == ("mini", Setting.TASK_GIVEN)
    assert [t.name for t in benchmark.tasks] == sorted(t.name for t in benchmark.tasks)
    assert all(len(prompts) >= 2 for t in benchmark.tasks for prompts in t.classes.prompts)
    images, labels = sequence.train_set(2).__getitems__(range(60))
    assert images.shape == (60, 3, 32, 32)
    assert labels.max() == len(benchmark.tasks[2].classes) - 1


def test_renderings_share_no_image() -> None:
    official, validation = (mini.tasks(rendering=r) for r in ("official", "validation"))
    seen = [
        {i.numpy().tobytes() for i in s.__getitems__(range(60))[0]}
        for sequence in (official, validation)
        for s in (sequence.train_set(2), sequence.test_set(2))
    ]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 240


def test_the_cache_is_used_and_a_damaged_file_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mini.tasks().train_set(0).digest()
    (file,) = tmp_path.rglob("arrows-official.npz")
    with monkeypatch.context() as patch:
        patch.setattr(mini, "render_split", lambda *a: pytest.fail("rendered again"))
        assert mini.tasks().train_set(0).digest() == first
    file.write_bytes(file.read_bytes()[:100])
    assert mini.tasks().train_set(0).digest() == first


def test_reference_pairs_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = mini.tasks().reference_pairs(0, "benchmark", 10, 0)
    mini._reference_pool.cache_clear()
    monkeypatch.setattr(mini, "reference_pairs", lambda *a: pytest.fail("rendered again"))
    second = mini.tasks().reference_pairs(0, "benchmark", 10, 0)
    assert torch.equal(first.images, second.images)
    assert (first.captions, first.labels.tolist()) == (second.captions, second.labels.tolist())


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mini.tasks().train_set(0).digest()
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "file"))
    assert mini.tasks().train_set(0).digest() == first


def test_few_shot_takes_k_per_class_whatever_the_run() -> None:
    sequence = mini.tasks(shots=2, name="mini-2shot")
    labels = sequence.train_set(0).__getitems__(range(16))[1]
    assert labels.bincount().tolist() == [2] * 8
    assert mini.tasks(shots=2).train_set(0).digest() == sequence.train_set(0).digest()
    assert mini.tasks(shots=2, shot_seed=1).train_set(0).digest() != sequence.train_set(0).digest()


def test_reference_pairs_are_held_out_and_fixed_by_the_seed() -> None:
    sequence = mini.tasks()
    pairs = sequence.reference_pairs(0, "benchmark", 20, seed=1)
    again = sequence.reference_pairs(3, "benchmark", 20, seed=1)
    other = sequence.reference_pairs(0, "benchmark", 20, seed=2)
    assert len(pairs.images) == 20
    assert torch.equal(pairs.images, again.images)
    assert not torch.equal(pairs.images, other.images)
    assert int(pairs.labels.max()) == len(pairs.captions) - 1
    assert pairs.source.startswith("benchmark")


def test_smoke_runs_draw_fewer_reference_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "QUICK_REFERENCE", 7)
    for sequence in (mini.tasks(quick=True), mini.class_steps(quick=True)):
        assert len(sequence.reference_pairs(0, "benchmark", 20, seed=1).images) == 7
        assert len(sequence.reference_pairs(0, "benchmark", 3, seed=1).images) == 3


def test_class_steps_pool_classes_of_several_tasks() -> None:
    sequence = mini.class_steps()
    benchmark = sequence.benchmark
    assert benchmark.setting is Setting.CLASS_INCREMENTAL
    assert [len(t.classes) for t in benchmark.tasks] == [8] * 10
    names = [n for t in benchmark.tasks for n in t.classes.names]
    assert len(set(names)) == 80
    assert benchmark.candidates(2, 2) is None
    seen = benchmark.candidates(2, 0)
    assert seen is not None
    assert len(seen) == 16
    labels = sequence.test_set(3).__getitems__(range(len(sequence.test_set(3))))[1]
    assert set(labels.tolist()) == set(range(8))


def test_images_of_a_step_belong_to_its_classes() -> None:
    sequence = mini.class_steps()
    plain = mini.tasks()
    by_image = {}
    for t, task in enumerate(plain.benchmark.tasks):
        images, labels = plain.test_set(t).__getitems__(range(60))
        for image, label in zip(images, labels, strict=True):
            by_image[image.numpy().tobytes()] = task.classes.names[int(label)]
    images, labels = sequence.test_set(0).__getitems__(range(len(sequence.test_set(0))))
    names = sequence.benchmark.tasks[0].classes.names
    found = [by_image[i.numpy().tobytes()] for i in images]
    assert found == [names[y] for y in labels.tolist()]


def test_class_order_has_a_seed_of_its_own() -> None:
    orders = [
        [t.classes.names for t in mini.class_steps(class_seed=s).benchmark.tasks] for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_steps_must_divide_the_classes() -> None:
    with pytest.raises(ClbenchError, match=r"benchmark\.steps=7"):
        mini.class_steps(steps=7)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ClbenchError, match="32 x 32"):
        mini.tasks(image_size=224)


def test_a_task_may_be_a_part_of_a_domain() -> None:
    halves = mini.tasks(order=["shapes-1of2", "shapes-2of2"])
    whole = mini.tasks(order=["shapes"])
    names = whole.benchmark.tasks[0].classes.names
    assert [t.classes.names for t in halves.benchmark.tasks] == [names[::2], names[1::2]]
    for split in ("train_set", "test_set"):
        images, labels = getattr(whole, split)(0).__getitems__(range(60))
        for part in (0, 1):
            own = getattr(halves, split)(part)
            found, numbers = own.__getitems__(range(len(own)))
            assert torch.equal(found, images[labels % 2 == part])
            assert torch.equal(numbers, labels[labels % 2 == part] // 2)


def test_parts_keep_their_number_of_shots() -> None:
    labels = mini.tasks(order=["shapes-2of3"], shots=2).train_set(0).__getitems__(range(8))[1]
    assert labels.bincount().tolist() == [2] * 4


@pytest.mark.parametrize(
    "part", ["shapes-3of2", "shapes-0of2", "flowers-3of4", "dots-1of2", "x-1of2"]
)
def test_parts_that_do_not_exist_are_refused(part: str) -> None:
    with pytest.raises(ClbenchError, match=f"task in benchmark.order '{part}'"):
        mini.tasks(order=[part])


def test_quick_tests_fewer_images_of_every_class() -> None:
    monkey = mini.tasks(quick=True)
    assert len(monkey.test_set(0)) <= 64
    labels = monkey.test_set(0).__getitems__(range(len(monkey.test_set(0))))[1]
    assert np.unique(labels.numpy()).size == 8


@pytest.mark.parametrize("shift", ["inverted", "corrupted"])
def test_a_shift_of_images_changes_both_sets_and_no_label(shift: mini.Shift) -> None:
    plain, shifted = mini.tasks(), mini.tasks(shift=shift)
    for before, after in (
        (plain.train_set(0), shifted.train_set(0)),
        (plain.test_set(0), shifted.test_set(0)),
    ):
        assert torch.equal(before.labels, after.labels)
        same = (before.images == after.images).float().mean()
        assert same < 0.2
    assert shifted.train_set(0).digest() == mini.tasks(shift=shift).train_set(0).digest()
    noises = [mini.tasks(shift=shift).train_set(t).images for t in (0, 1)]
    assert not torch.equal(*noises)


def test_inverted_colours_are_those_of_the_negative() -> None:
    plain, shifted = mini.tasks().test_set(2), mini.tasks(shift="inverted").test_set(2)
    assert torch.equal(shifted.images, 255 - plain.images)


def test_random_labels_are_dealt_to_training_images_only() -> None:
    plain, shifted = mini.tasks(), mini.tasks(shift="random-labels")
    before, after = plain.train_set(0), shifted.train_set(0)
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.labels.bincount(), after.labels.bincount())
    agree = (before.labels == after.labels).float().mean()
    assert agree < 0.4
    assert torch.equal(after.labels, mini.tasks(shift="random-labels").train_set(0).labels)
    assert plain.test_set(0).digest() == shifted.test_set(0).digest()


def test_few_shot_images_are_the_same_whatever_the_shift() -> None:
    plain, shifted = (mini.tasks(shots=2, shift=s) for s in ("none", "random-labels"))
    assert torch.equal(plain.train_set(0).images, shifted.train_set(0).images)
    assert shifted.train_set(0).labels.bincount().tolist() == [2] * 8


def test_no_shift_is_what_the_benchmark_was() -> None:
    assert mini.tasks(shift="none").train_set(3).digest() == mini.tasks().train_set(3).digest()
    settings = [resolve("nusa", "mini", overrides=o)[0] for o in ({}, {"benchmark.shift": "none"})]
    before = settings[0].model_dump(mode="json")
    assert before["benchmark"]["options"].pop("shift") == "none"
    assert len({settings_hash(before), *(one.fingerprint() for one in settings)}) == 1
    shifted = resolve("nusa", "mini", overrides={"benchmark.shift": "inverted"})[0]
    assert shifted.fingerprint() != settings[0].fingerprint()
