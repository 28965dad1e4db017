"""CoOp's version of the data sets, X-TAIL and MTIL with CoOp's splits, on small trees."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.identity import settings_hash
from clbench.core.task import Setting
from clbench.datamodules import mtil, xtail
from clbench.datamodules.catalogue.catalogue import CATALOG, declared_counts
from clbench.datamodules.catalogue.coop import SPLITS, declared_splits
from clbench.datamodules.fetching.inventory import survey
from clbench.datamodules.pixels.rgb import decode
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.readers.coop import PARTS, read_coop
from clbench.datamodules.sequence import TaskSequence
from tests.datamodules.coop_formats import FOLDERS, LISTS, write_coop
from tests.datamodules.disk_formats import write_all

SIZE = 32
PUBLISHED = dict(SPLITS)
TOTALS = {name: dataset.total for name, dataset in CATALOG.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CoOp's folders."""
    folder = tmp_path_factory.mktemp("coop")
    sizes = write_coop(folder)
    counts = write_all(tmp_path_factory.mktemp("counts"))
    with declared_counts(counts), declared_splits(sizes):
        yield folder


def build(root: Path, **options: Any) -> TaskSequence:
    return xtail.tasks(data_root=str(root), image_size=SIZE, **options)


def task_names(sequence: TaskSequence) -> list[str]:
    return [task.name for task in sequence.benchmark.tasks]


def listed(root: Path, name: str) -> dict[str, list[list[Any]]]:
    """A list as it lies there, its paths complete."""
    file, images, place = LISTS[name]
    folder = root / FOLDERS[name][1]
    content = json.loads((folder / place / file).read_text())
    return {k: [[folder / images / f, y, c] for f, y, c in rows] for k, rows in content.items()}


@pytest.mark.parametrize("name", list(LISTS))
def test_every_image_stands_where_its_list_has_it(root: Path, name: str) -> None:
    contents = read_coop(CATALOG[name], root)
    rows = listed(root, name)
    for part, samples in zip(PARTS, (contents.train, contents.val, contents.test), strict=True):
        assert isinstance(samples, Samples)
        assert samples.labels.tolist() == [label for _, label, _ in rows[part]]
        assert [samples.root / f for f in samples.files or ()] == [
            file for file, _, _ in rows[part]
        ]
        for i, (file, label, class_name) in enumerate(rows[part]):
            expected = np.asarray(decode(file, file.read_bytes()))
            np.testing.assert_array_equal(np.asarray(samples.image(i)), expected)
            assert contents.class_names[label] == class_name


def test_aircraft_keeps_its_official_lists_and_mnist_all_its_images(root: Path) -> None:
    contents = read_coop(CATALOG["Aircraft"], root)
    folder = root / "fgvc_aircraft"
    for part, samples in zip(PARTS, (contents.train, contents.val, contents.test), strict=True):
        assert samples is not None
        lines = (folder / f"images_variant_{part}.txt").read_text().splitlines()
        assert [f"images/{line[:7]}.jpg" for line in lines] == list(samples.files or ())
        assert [contents.class_names[y] for y in samples.labels] == [line[8:] for line in lines]
    mnist = read_coop(CATALOG["MNIST"], root)
    assert (len(mnist.train), mnist.val, len(mnist.test)) == (18, None, 6)


def test_the_published_sizes_add_up_to_the_data_sets() -> None:
    """CoOp splits the same images anew; of Caltech 101 it leaves out the 435 easy faces."""
    others = {"Caltech101": 8677 - 435, "Flowers": 8189, "DTD": 5640, "SUN397": 39700}
    for name, split in PUBLISHED.items():
        if split.file is not None:
            assert sum(split.sizes[1:]) == others.get(name, TOTALS[name])
    assert sum(PUBLISHED[name].sizes[0] for name in xtail.ORDERS["I"]) == 1100


def test_orders_are_the_published_ones(root: Path) -> None:
    first, second = build(root), build(root, order="II")
    assert task_names(first) == [
        *("Aircraft", "Caltech101", "DTD", "EuroSAT", "Flowers", "Food", "MNIST", "OxfordPet"),
        *("StanfordCars", "SUN397"),
    ]
    assert task_names(second) == [
        *("StanfordCars", "Aircraft", "OxfordPet", "Food", "SUN397", "MNIST", "Flowers", "DTD"),
        *("Caltech101", "EuroSAT"),
    ]
    with pytest.raises(ClbenchError, match=r"unknown benchmark\.order 'III'"):
        build(root, order="III")


def test_every_image_is_scored_among_the_classes_of_all_tasks(root: Path) -> None:
    benchmark = build(root).benchmark
    assert benchmark.setting is Setting.TASK_HIDDEN
    for task in (0, 5):
        everything = benchmark.candidates(3, task)
        assert everything is not None
        assert everything.ids == tuple(range(sum(len(t.classes) for t in benchmark.tasks)))


def test_prompts_are_those_of_rail_or_of_coop(root: Path) -> None:
    rail, coop = build(root), build(root, prompts="coop")
    first = {
        t.name: (t.classes.prompts[0], coop.benchmark.tasks[i].classes.prompts[0])
        for i, t in enumerate(rail.benchmark.tasks)
    }
    assert first["Caltech101"] == (("a photo of a face.",), ("a photo of a face.",))
    assert first["EuroSAT"] == (
        ("a photo of a Annual Crop Land satellite location.",),
        ("a centered satellite photo of Annual Crop Land.",),
    )
    assert first["MNIST"] == (
        ('a photo of a number: "0 - zero".',),
        ('a photo of the number: "0 - zero".',),
    )
    assert first["Food"] == (
        ("a photo of a apple pie.",),
        ("a photo of apple pie, a type of food.",),
    )
    assert first["DTD"][1] == ("banded texture.",)
    assert first["OxfordPet"][1] == ("a photo of a abyssinian, a type of pet.",)
    assert first["StanfordCars"][0] == ("a photo of a 2000 AM General Hummer SUV.",)
    assert (rail.benchmark.order, coop.benchmark.order) == ("I", "I, CoOp prompts")


def test_a_prompt_of_two_data_sets_is_told(root: Path, tmp_path: Path) -> None:
    assert build(root).notes == ()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    path = copy / "food-101" / "split_zhou_Food101.json"
    path.write_text(path.read_text().replace('"baklava"', '"leopard"'))
    (note,) = build(copy).notes
    assert note.endswith("where text alone decides: a photo of a leopard.")


def test_hashes_of_lists_and_validation_images_are_recorded(root: Path) -> None:
    found = build(root).list_hashes
    path = root / "sun397" / "split_zhou_SUN397.json"
    assert found["SUN397/split_zhou_SUN397.json"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {key for key in found if key.startswith("Aircraft")} == {"Aircraft/val"}
    assert not any(key.startswith("MNIST") for key in found)


def test_sixteen_shots_are_drawn_from_the_training_list(root: Path) -> None:
    assert registry.benchmark("xtail-16shot").options == {"shots": 16}
    assert registry.benchmark("xtail").options == {}
    sequence, again = build(root, shots=2), build(root, shots=2, order="II")
    names = task_names(again)
    for task, name in enumerate(task_names(sequence)):
        images: Any = sequence.train_set(task)
        assert set(np.bincount(images.labels)) == {2}
        assert images.digest() == again.train_set(names.index(name)).digest()
        files = set(read_coop(CATALOG[name], root).train.files or ())
        assert set(images.file.samples.files or ()) <= files


def test_coops_draws_and_mtils_lie_apart(root: Path, tmp_path: Path) -> None:
    for splits in ("zscl", "coop"):
        order = ["DTD"]
        kwargs: Any = {"order": order, "shots": 3, "splits": splits, "cache_root": str(tmp_path)}
        mtil.tasks(data_root=str(root), image_size=SIZE, **kwargs)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert found == ["splits/DTD-3shot-seed0.json", "splits/coop/DTD-3shot-seed0.json"]


def test_mtil_with_coops_splits_is_another_run_on_other_images(root: Path) -> None:
    order = ["DTD", "EuroSAT", "CIFAR100"]
    ours, coops = (
        mtil.tasks(data_root=str(root), image_size=SIZE, order=order, splits=splits)
        for splits in ("zscl", "coop")
    )
    assert coops.benchmark.order == "DTD, EuroSAT, CIFAR100, CoOp splits"
    assert coops.benchmark.tasks[1].classes.prompts[0] == (
        "a centered satellite photo of Annual Crop Land.",
    )
    assert coops.benchmark.tasks[2].classes.prompts[1] == ("a photo of a aquarium fish.",)
    for task in (0, 1):
        assert ours.train_set(task).digest() != coops.train_set(task).digest()
        assert ours.test_set(task).digest() != coops.test_set(task).digest()
        assert ours.test_set(task).file.path != coops.test_set(task).file.path  # type: ignore[attr-defined]
    assert ours.test_set(2).digest() == coops.test_set(2).digest()  # official in both
    hashes = [
        settings_hash(config.resolve("nusa", "mtil", overrides=o)[0].model_dump(mode="json"))
        for o in ({}, {"benchmark.splits": "coop"})
    ]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("val"), "has no lists 'train', 'val' and 'test'"),
        (lambda x: x["train"].append(["a.jpg", "0", "banded"]), "has an unexpected row"),
        (lambda x: x["train"].append(["../a.jpg", 0, "banded"]), "has an unexpected row"),
        (lambda x: x["train"].append(["no.jpg", 0, "banded"]), r"no\.jpg, listed in"),
        (lambda x: x["train"].append([x["test"][0][0], 0, "banded"]), "in two of its lists"),
        (lambda x: x["test"].append([x["test"][0][0], 0, "banded"]), "twice"),
        (lambda x: x["val"][0].__setitem__(2, "dotted"), "calls class 0 .* but also"),
        (lambda x: x["val"][0].__setitem__(1, 3), "label 3, counted from 0, but there are 3"),
        (lambda x: x["test"].pop(), "test images in CoOp's split, 9 expected"),
    ],
)
def test_damaged_lists_are_refused(root: Path, tmp_path: Path, change: Any, message: str) -> None:
    shutil.copytree(root / "dtd", tmp_path / "dtd")
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ClbenchError, match=message) as error:
        read_coop(CATALOG["DTD"], tmp_path)
    assert str(error.value).startswith("DTD: ")


def test_a_missing_list_is_asked_for_beside_the_images(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "dtd", tmp_path / "dtd")
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").unlink()
    assert survey(["DTD"], tmp_path)[0].status == "present"
    (state,) = survey(["DTD"], tmp_path, "coop")
    assert (state.status, state.detail) == (
        "incomplete",
        "no split_zhou_DescribableTextures.json",
    )
    assert state.todo.startswith(f"put it into {tmp_path / 'dtd'}, see https://github.com/")
    with pytest.raises(ClbenchError, match="not all data sets are ready"):
        build(tmp_path)


def test_a_list_may_lie_in_another_layout_than_the_images(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "dtd", tmp_path / "dtd" / "dtd")
    listed_in = tmp_path / "dtd" / "dtd" / "split_zhou_DescribableTextures.json"
    listed_in.rename(tmp_path / "dtd" / listed_in.name)
    moved, there = read_coop(CATALOG["DTD"], tmp_path), read_coop(CATALOG["DTD"], root)
    assert moved.train.digest() == there.train.digest()
    assert moved.lists == there.lists
