from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.task import Setting
from clbench.datamodules import cifar_steps
from clbench.datamodules.catalogue.catalogue import declared_counts
from clbench.datamodules.sequence import TaskSequence
from tests.datamodules.disk_formats import TEST, TRAIN, write_cifar100

SIZE = 32
FIRST = [87, 0, 52, 58, 44, 91, 68, 97, 51, 15]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    with declared_counts({"CIFAR100": write_cifar100(folder)}):
        yield folder


def build(root: Path, **options: object) -> TaskSequence:
    return cifar_steps.steps(data_root=str(root), image_size=SIZE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_every_class_is_learned_once(root: Path, steps: int) -> None:
    benchmark = build(root, steps=steps).benchmark
    names = [name for task in benchmark.tasks for name in task.classes.names]
    assert len(benchmark) == steps
    assert {len(task.classes) for task in benchmark.tasks} == {100 // steps}
    assert len(set(names)) == 100
    assert benchmark.setting is Setting.CLASS_INCREMENTAL


def test_the_published_order_begins_with_its_classes(root: Path) -> None:
    sequence = build(root)
    names = ["thing_87", "apple", *(f"thing_{i}" for i in FIRST[2:])]
    prompts = sequence.benchmark.tasks[0].classes.prompts
    expected = tuple((f"a bad photo of a {n.replace('_', ' ')}.",) for n in names)
    assert prompts == expected
    assert sequence.benchmark.order == "published"


def test_a_shuffled_order_has_a_seed_of_its_own(root: Path) -> None:
    first, again, other = (
        build(root, class_order="shuffled", class_seed=seed).benchmark for seed in (0, 0, 1)
    )
    assert first == again
    assert (first.order, other.order) == ("shuffled-0", "shuffled-1")
    assert first.tasks[0].classes.names != other.tasks[0].classes.names


def test_a_step_holds_the_images_of_its_classes(root: Path) -> None:
    """Mean colours tell classes apart: the writer gives each its own."""
    sequence, one_step = build(root), build(root, steps=1)
    everything, labels = one_step.test_set(0).__getitems__(range(100 * TEST))
    for step in (0, 7):
        images = sequence.test_set(step)
        assert (len(images), len(sequence.train_set(step))) == (10 * TEST, 10 * TRAIN)
        pixels, own = images.__getitems__(range(len(images)))
        known = {p.numpy().tobytes(): int(y) for p, y in zip(everything, labels, strict=True)}
        assert [known[p.numpy().tobytes()] - 10 * step for p in pixels] == own.tolist()


def test_steps_that_do_not_divide_the_classes_are_refused(root: Path) -> None:
    with pytest.raises(ClbenchError, match=r"benchmark.steps=30 does not divide 100 classes"):
        build(root, steps=30)


def test_the_published_protocol_tests_on_crops_and_says_so(root: Path) -> None:
    clean, published, again = (build(root, protocol=p) for p in ("clean", "published", "published"))
    assert published.benchmark.order == "published, published protocol"
    sets = [s.test_set(3).__getitems__(range(10))[0] for s in (clean, published, again)]
    assert not torch.equal(sets[0], sets[1])
    assert torch.equal(sets[1], sets[2])
    assert clean.test_set(3).digest() != published.test_set(3).digest()
    train = [s.train_set(3).digest() for s in (clean, published)]
    assert train[0] == train[1]


def test_the_published_protocol_leaves_underscores_in_class_names(root: Path) -> None:
    def prompts(protocol: str) -> dict[str, tuple[str, ...]]:
        classes = [task.classes for task in build(root, protocol=protocol).benchmark.tasks]
        return {name: text for c in classes for name, text in zip(c.names, c.prompts, strict=True)}

    clean, published = prompts("clean"), prompts("published")
    assert clean["aquarium fish"] == ("a bad photo of a aquarium fish.",)
    assert published["aquarium_fish"] == ("a bad photo of a aquarium_fish.",)
    assert not any("_" in name for name in clean)
    assert [name.replace("_", " ") for name in published] == list(clean)
    assert build(root).benchmark.version == 2


def test_crops_of_the_published_protocol_survive_the_cache(root: Path) -> None:
    before = build(root, protocol="published").test_set(1).__getitems__(range(20))[0]
    sequence = build(root, protocol="published")
    sequence.prepare(config.resolve("zeroshot", "cifar100-10step")[0].train, quiet=True)
    images = sequence.test_set(1)
    assert images.file.cached  # type: ignore[attr-defined]
    assert torch.equal(images.__getitems__(range(20))[0], before)


def test_a_smoke_run_tests_few_images(root: Path) -> None:
    assert len(build(root, steps=1, quick=True).test_set(0)) == 67


@pytest.mark.parametrize("name", ["cifar100-10step", "cifar100-20step", "cifar100-50step"])
def test_recipes_train_one_epoch_per_step(name: str) -> None:
    recipe = registry.benchmark(name)
    images = 50000 // recipe.options["steps"]
    for method in ("finetune", "gnsp", "nusa", "lora", "milora"):
        train = config.resolve(method, name)[0].train
        assert isinstance(train.steps, int)
        assert 0 <= train.steps * train.batch_size - images < train.batch_size
    assert recipe.train["steps"] * recipe.train["batch_size"] >= images


def test_the_published_settings_reach_the_run() -> None:
    train = config.resolve("finetune", "cifar100-20step")[0].train
    assert (train.lr, train.warmup, train.batch_size) == (7.1e-6, 30, 64)
    assert train.augmentation == "crop"
    assert config.resolve("nusa", "cifar100-20step")[0].train.augmentation == "none"
