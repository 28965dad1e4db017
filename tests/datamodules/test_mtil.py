from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.task import Setting
from clbench.datamodules import mtil
from clbench.datamodules.catalogue.catalogue import CATALOG
from clbench.datamodules.pixels.decoded import Decoded
from clbench.datamodules.sequence import TaskSequence
from tests.datamodules.disk_formats import TEST, TRAIN
from tests.small_data import small_data

SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_data(tmp_path_factory.mktemp("data")) as folder:
        yield folder


def build(root: Path, **options: object) -> TaskSequence:
    return mtil.tasks(data_root=str(root), image_size=SIZE, **options)  # type: ignore[arg-type]


def task_names(sequence: TaskSequence) -> list[str]:
    return [task.name for task in sequence.benchmark.tasks]


def test_order_one_is_alphabetical_and_order_two_has_the_same_data_sets(root: Path) -> None:
    published = ["Aircraft", "Caltech101", "CIFAR100", "DTD", "EuroSAT", "Flowers", "Food"]
    published += ["MNIST", "OxfordPet", "StanfordCars", "SUN397"]
    assert task_names(build(root)) == published
    second = build(root, order="II")
    assert task_names(second)[:3] == ["StanfordCars", "Food", "MNIST"]
    assert sorted(task_names(second)) == sorted(published)
    assert second.benchmark.order == "II"


def test_a_random_order_has_a_seed_of_its_own(root: Path) -> None:
    orders = [build(root, order="random", order_seed=seed) for seed in (0, 0, 1)]
    assert task_names(orders[0]) == task_names(orders[1]) != task_names(orders[2])
    assert [o.benchmark.order for o in orders] == ["random-0", "random-0", "random-1"]


def test_any_list_of_data_sets_is_an_order(root: Path) -> None:
    sequence = build(root, order=["MNIST", "DTD"])
    assert task_names(sequence) == ["MNIST", "DTD"]
    assert sequence.benchmark.order == "MNIST, DTD"


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("III", "unknown benchmark.order 'III': did you mean 'II'"),
        (["MNISTT"], "unknown data set in benchmark.order 'MNISTT': did you mean 'MNIST'"),
        ([], "must name one data set or more"),
        (["DTD", "DTD"], "each once"),
    ],
)
def test_an_order_that_does_not_exist_is_one_clear_line(
    root: Path, order: object, message: str
) -> None:
    with pytest.raises(ClbenchError, match=message) as caught:
        build(root, order=order)
    assert "\n" not in str(caught.value)


def test_prompts_are_those_of_the_protocol(root: Path) -> None:
    tasks = {task.name: task.classes for task in build(root).benchmark.tasks}
    assert tasks["Caltech101"].names[0] == "off-center face"
    assert tasks["Caltech101"].prompts[0][0] == "a photo of a off-center face."
    assert {len(prompts) for prompts in tasks["Caltech101"].prompts} == {34}
    assert tasks["MNIST"].prompts[0] == ('a photo of the number: "0 - zero".',)
    assert tasks["CIFAR100"].names[1] == "aquarium fish"


def test_images_keep_their_labels(root: Path) -> None:
    sequence = build(root)
    for task, name in enumerate(task_names(sequence)):
        for images in (sequence.train_set(task), sequence.test_set(task)):
            pixels, labels = images.__getitems__(range(len(images)))
            assert pixels.shape[1:] == (3, SIZE, SIZE), name
            means = pixels[:60].float().mean((1, 2, 3))
            same = labels[:60, None] == labels[None, :60]
            distance = (means[:, None] - means[None]).abs()
            # The writer gives every class its own colour.
            assert distance[same].mean() < distance[~same].mean(), name


def test_splits_have_the_declared_sizes(root: Path) -> None:
    sequence = build(root)
    for task, name in enumerate(task_names(sequence)):
        sizes = (len(sequence.train_set(task)), len(sequence.test_set(task)))
        assert sizes == (CATALOG[name].train, CATALOG[name].test)
    assert (root / "splits" / "SUN397-random-split.json").is_file()


def test_few_shot_sets_are_the_same_for_every_build(root: Path) -> None:
    first, again = build(root, shots=2), build(root, shots=2, order="II")
    names = task_names(again)
    for task, name in enumerate(task_names(first)):
        images = first.train_set(task)
        assert isinstance(images, Decoded)
        assert set(np.bincount(images.labels)) == {2}
        assert images.digest() == again.train_set(names.index(name)).digest()
        assert len(first.test_set(task)) == CATALOG[name].test
    other = build(root, shots=2, shot_seed=1)
    digests = [[s.train_set(t).digest() for t in range(11)] for s in (first, other)]
    assert all(a != b for a, b in zip(*digests, strict=True))


def test_too_few_images_name_data_set_and_class(root: Path) -> None:
    with pytest.raises(ClbenchError, match=f"Aircraft: class '707-320' has {TRAIN} training"):
        build(root, shots=TRAIN + 1)


def test_a_hidden_task_is_another_setting(root: Path) -> None:
    benchmark = build(root, setting="task-hidden").benchmark
    assert benchmark.setting is Setting.TASK_HIDDEN
    everything = benchmark.candidates(0, 0)
    assert everything is not None
    assert len(everything) == sum(len(task.classes) for task in benchmark.tasks)


def test_a_smoke_run_tests_few_images(root: Path) -> None:
    sequence = build(root, quick=True)
    cifar = task_names(sequence).index("CIFAR100")
    assert 64 <= len(sequence.test_set(cifar)) < 100 * TEST
    assert isinstance(sequence.test_set(cifar), Decoded)
    assert not sequence.test_set(cifar).file.cached  # type: ignore[attr-defined]


def test_missing_folders_are_told_together_before_anything_is_read(
    root: Path, tmp_path: Path
) -> None:
    for name in ("dtd", "MNIST"):
        shutil.copytree(root / name, tmp_path / name)
    with pytest.raises(ClbenchError) as caught:
        build(tmp_path, order=["DTD", "Food", "MNIST", "SUN397"])
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["Food", "SUN397"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MNIST", "dtd"]


def test_a_test_image_that_is_cut_short_is_named_before_training(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "dtd", tmp_path / "dtd")
    broken = next((tmp_path / "dtd").rglob("banded_0008.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    sequence = build(tmp_path, order=["DTD"])
    settings = config.resolve("nusa", "mtil")[0]
    with pytest.raises(ClbenchError, match=r"cannot read the image .*banded_0008\.jpg"):
        sequence.prepare(settings.train, quiet=True)
    assert not list((tmp_path / "decoded").glob("*.[np]*"))


@pytest.mark.parametrize("shots", [1, 2, 4, 5, 8, 16])
def test_every_few_shot_recipe_differs_by_its_shots_only(shots: int) -> None:
    recipe = registry.benchmark(f"mtil-{shots}shot")
    assert recipe.options == {"shots": shots}
    assert (recipe.family, recipe.builder) == ("mtil", registry.benchmark("mtil").builder)
    full, few = (config.resolve("nusa", name)[0] for name in ("mtil", f"mtil-{shots}shot"))
    assert few.train == full.train


def test_the_published_settings_reach_the_run() -> None:
    nusa, finetune, gnsp = (
        config.resolve(m, "mtil")[0].train for m in ("nusa", "finetune", "gnsp")
    )
    assert (nusa.steps, nusa.batch_size, nusa.lr, nusa.augmentation) == (1000, 16, 3e-4, "none")
    assert (finetune.lr_for("MNIST"), finetune.lr_for("DTD")) == (5e-5, 1e-5)
    assert (finetune.augmentation, finetune.batch_size, finetune.warmup) == ("crop", 64, 100)
    assert (gnsp.steps_for("Aircraft", 3334), gnsp.lr_for("Food")) == (100, 5e-5)
    assert gnsp.augmentation == "crop"


def test_gnsp_takes_the_rates_of_the_order() -> None:
    order_two = {"benchmark.order": "II"}
    settings, _ = config.resolve("gnsp", "mtil", overrides=order_two)
    assert settings.train.steps_for("Aircraft", 3334) == 1000
    assert settings.train.lr_for("Aircraft") == 5e-5
    assert settings.train.lr_for("Food") == 1e-5
    assert settings.train.augmentation == "crop"
    few, _ = config.resolve("gnsp", "mtil-5shot", overrides=order_two)
    assert few.train.lr_for("Food") == 1e-5
    own = config.resolve("gnsp", "mtil", overrides={**order_two, "train.lr": 3e-5})[0]
    assert own.train.lr_for("Food") == 3e-5
    for order in ("I", ["DTD", "MNIST"]):
        same = config.resolve("gnsp", "mtil", overrides={"benchmark.order": order})[0]
        assert same.train.steps_for("Aircraft", 3334) == 100


def test_the_training_loader_crops_originals(root: Path) -> None:
    sequence = build(root, order=["DTD"])
    loaders = [
        sequence.train_loader(0, batch_size=4, steps=1, seed=0, augmentation=kind)
        for kind in ("none", "crop")
    ]
    (plain, labels), (cropped, cropped_labels) = (next(iter(loader)) for loader in loaders)
    assert torch.equal(labels, cropped_labels)
    assert not torch.equal(plain, cropped)
