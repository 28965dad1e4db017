"""TinyImageNet, ImageNet-R and CUB-200 in steps, from small trees in the real formats."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timm.data import ImageNetInfo

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.task import Setting
from clbench.datamodules import class_sets
from clbench.datamodules.catalogue.catalogue import OTHERS, data_set, declared_counts
from clbench.datamodules.catalogue.class_lists import class_list
from clbench.datamodules.fetching.inventory import survey
from clbench.datamodules.pixels.rgb import decode
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.readers.read import read
from clbench.datamodules.sequence import TaskSequence
from tests.datamodules import class_set_formats as formats

SIZE = 16
BUILDERS: dict[str, Callable[..., TaskSequence]] = {
    "TinyImageNet": class_sets.tinyimagenet,
    "ImageNet-R": class_sets.imagenet_r,
    "CUB-200": class_sets.cub200,
}
PUBLISHED = {name: OTHERS[name] for name in BUILDERS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    counts = {
        "TinyImageNet": formats.write_tinyimagenet(folder),
        "ImageNet-R": formats.write_imagenet_r(folder),
        "CUB-200": formats.write_cub(folder),
    }
    with declared_counts(counts):
        yield folder


def build(root: Path, name: str, **options: Any) -> TaskSequence:
    return BUILDERS[name](data_root=str(root), image_size=SIZE, **options)


def listed(root: Path, name: str) -> dict[str, list[tuple[str, int]]]:
    """Files and labels of both splits, read anew and as simply as can be."""
    if name == "TinyImageNet":
        folder = root / "tiny-imagenet-200"
        ids = (folder / "wnids.txt").read_text().split()
        lines = (folder / "val/val_annotations.txt").read_text().splitlines()
        test = [(f"val/images/{x.split()[0]}", ids.index(x.split()[1])) for x in lines]
        paths = [sorted((folder / "train" / i / "images").iterdir()) for i in ids]
        train = [(str(p.relative_to(folder)), y) for y, ps in enumerate(paths) for p in ps]
    elif name == "ImageNet-R":
        folder = root / "imagenet-r"
        ids = sorted(p.name for p in folder.iterdir() if p.is_dir())
        lines = (folder / "imgr_train_test_split.txt").read_text().split()
        cut = lines.index("test")
        train, test = (
            [(line, ids.index(line[:9])) for line in part]
            for part in (lines[1:cut], lines[cut + 1 :])
        )
    else:
        folder = root / "CUB_200_2011"
        files, labels, flags = (
            dict(line.split() for line in (folder / f"{table}.txt").read_text().splitlines())
            for table in ("images", "image_class_labels", "train_test_split")
        )
        train, test = (
            [(f"images/{files[n]}", int(labels[n]) - 1) for n in files if flags[n] == flag]
            for flag in "10"
        )
    return {"train": train, "test": test}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_every_image_stands_where_the_lists_have_it(name: str, root: Path) -> None:
    contents, expected = read(data_set(name), root), listed(root, name)
    for part, samples in (("train", contents.train), ("test", contents.test)):
        assert isinstance(samples, Samples)
        assert list(zip(samples.files or (), samples.labels, strict=True)) == expected[part]
        for i in range(0, len(samples), 41):
            path = samples.root / expected[part][i][0]
            pixels = np.asarray(decode(path, path.read_bytes()))
            np.testing.assert_array_equal(np.asarray(samples.image(i)), pixels)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_steps_hold_the_classes_of_the_published_order(name: str, root: Path) -> None:
    contents, sequence = read(data_set(name), root), build(root, name)
    (order,) = list(class_list(name).orders.values())[:1]
    told = [n for task in sequence.benchmark.tasks for n in task.classes.names]
    assert told == [contents.class_names[c].replace("_", " ") for c in order]
    assert sequence.benchmark.setting is Setting.CLASS_INCREMENTAL
    first = 0
    for task, step in enumerate(sequence.benchmark.tasks):
        for images, samples in (
            (sequence.train_set(task), contents.train),
            (sequence.test_set(task), contents.test),
        ):
            labels: list[int] = images.labels.tolist()  # type: ignore[attr-defined]
            indices = images._indices  # type: ignore[attr-defined]
            assert [order[first + y] for y in labels] == samples.labels[indices].tolist()
            assert sorted(set(labels)) == list(range(len(step.classes)))
        first += len(step.classes)
    assert first == 200


@pytest.mark.parametrize(
    ("recipe", "name", "sizes"),
    [
        ("tinyimagenet-5step", "TinyImageNet", [100, *[20] * 5]),
        ("tinyimagenet-10step", "TinyImageNet", [100, *[10] * 10]),
        ("tinyimagenet-20step", "TinyImageNet", [100, *[5] * 20]),
        ("imagenet-r-10step", "ImageNet-R", [20] * 10),
        ("imagenet-r-20step", "ImageNet-R", [10] * 20),
        ("cub200-10step", "CUB-200", [20] * 10),
    ],
)
def test_recipes_have_the_published_steps(
    recipe: str, name: str, sizes: list[int], root: Path
) -> None:
    found = registry.benchmark(recipe)
    assert found.load_builder() is BUILDERS[name]
    tasks = build(root, name, **found.options).benchmark.tasks
    assert [len(task.classes) for task in tasks] == sizes
    for method in ("finetune", "nusa", "gnsp"):
        train = config.resolve(method, recipe)[0].train
        assert train.steps_for("step01", 5000) == -(-5000 // train.batch_size)


def test_prompts_are_those_of_the_papers(root: Path) -> None:
    def first(name: str, **options: Any) -> str:
        return build(root, name, **options).benchmark.tasks[0].classes.prompts[0][0]

    assert first("TinyImageNet") == "a bad photo of a Persian cat."
    assert first("ImageNet-R") == "a good photo of a American lobster."
    assert first("ImageNet-R", protocol="published") == "a good photo of a American_lobster."
    assert first("ImageNet-R", class_order="mg-clip") == "a good photo of a mailbox."
    assert first("CUB-200") == "a good photo of a Bird 110."
    assert first("CUB-200", protocol="published") == "a good photo of a Bird_110."


def test_orders_are_permutations_and_tinyimagenets_is_a_seeded_shuffle() -> None:
    for name in BUILDERS:
        for order in class_list(name).orders.values():
            assert sorted(order) == list(range(200))
    shuffled = list(range(200))
    random.Random(0).shuffle(shuffled)
    assert list(class_list("TinyImageNet").orders["published"]) == shuffled


def test_names_fit_their_wordnet_ids() -> None:
    """ImageNet-R's names are WordNet's first words; TinyImageNet's are handwritten."""
    known = ImageNetInfo()
    for wordnet, name in class_list("ImageNet-R").names.items():
        assert known.label_name_to_description(wordnet).split(",")[0] == name.replace("_", " ")
    assert list(class_list("ImageNet-R").names) == sorted(class_list("ImageNet-R").names)
    assert len(set(class_list("TinyImageNet").names.values())) == 200


def test_orders_and_protocols_have_names_of_their_own(root: Path) -> None:
    def order(name: str, **options: Any) -> str:
        return build(root, name, **options).benchmark.order

    assert order("ImageNet-R") == "rapf"
    assert order("ImageNet-R", class_order="mg-clip") == "mg-clip"
    assert order("CUB-200", class_order="shuffled", class_seed=3) == "shuffled-3"
    assert order("TinyImageNet", protocol="published") == "published, published protocol"
    clean, crops = (build(root, "TinyImageNet", protocol=p) for p in ("clean", "published"))
    assert clean.test_set(1).digest() != crops.test_set(1).digest()
    assert clean.train_set(1).digest() == crops.train_set(1).digest()


def test_imagenet_r_may_be_split_into_folders(root: Path, tmp_path: Path) -> None:
    rows = listed(root, "ImageNet-R")
    for part, files in rows.items():
        for file, _ in files:
            place = tmp_path / "imagenet-r" / part / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "imagenet-r" / file, place)
    contents = read(data_set("ImageNet-R"), tmp_path)
    assert sorted(zip(contents.train.files or (), contents.train.labels, strict=True)) == sorted(
        (f"train/{file}", label) for file, label in rows["train"]
    )
    assert build(tmp_path, "ImageNet-R").list_hashes == {}
    assert list(build(root, "ImageNet-R").list_hashes) == ["ImageNet-R/imgr_train_test_split.txt"]


def test_a_missing_split_says_where_it_comes_from(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "imagenet-r" / "n01443537", tmp_path / "imagenet-r" / "n01443537")
    (state,) = survey(["ImageNet-R"], tmp_path)
    assert state.status == "incomplete"
    assert "imgr_train_test_split.txt (from github.com/linlany/RAPF" in state.detail


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "message"),
    [
        ("TinyImageNet", "tiny-imagenet-200/wnids.txt", "n02124075\n", "", "199 classes|published"),
        ("TinyImageNet", "tiny-imagenet-200/val/val_annotations.txt", "n0", "x0", "unexpected"),
        ("ImageNet-R", "imagenet-r/imgr_train_test_split.txt", "train\n", "", "no lines 'train'"),
        ("ImageNet-R", "imagenet-r/imgr_train_test_split.txt", "art_0", "art_9", "art_9.* missing"),
        ("CUB-200", "CUB_200_2011/train_test_split.txt", "1 1\n", "", "number other images"),
        ("CUB-200", "CUB_200_2011/image_class_labels.txt", "1 1\n", "1 201\n", "no class '201'"),
    ],
)
def test_damaged_lists_are_refused(
    root: Path, tmp_path: Path, name: str, path: str, old: str, new: str, message: str
) -> None:
    top = path.split("/")[0]
    (tmp_path / top).mkdir()
    for entry in (root / top).iterdir():  # images are linked, not copied
        if not entry.is_dir() or entry.name == "val":
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, tmp_path / top / entry.name)
        else:
            (tmp_path / top / entry.name).symlink_to(entry)
    file = tmp_path / path
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ClbenchError, match=message):
        read(data_set(name), tmp_path)


def test_published_sizes() -> None:
    assert {name: (entry.train, entry.test) for name, entry in PUBLISHED.items()} == {
        "TinyImageNet": (100000, 10000),
        "ImageNet-R": (24000, 6000),
        "CUB-200": (5994, 5794),
    }
    assert PUBLISHED["ImageNet-R"].any_split, "RAPF's list could not be counted"
