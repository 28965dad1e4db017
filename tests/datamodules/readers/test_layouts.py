"""A data set is the same data set in whatever layout it lies, and nothing is fetched twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench.cli.data import data_app
from clbench.core.errors import ClbenchError
from clbench.datamodules import mtil
from clbench.datamodules.catalogue.catalogue import CATALOG, data_set, declared_counts
from clbench.datamodules.catalogue.layouts import PLACES
from clbench.datamodules.catalogue.remote import Source
from clbench.datamodules.fetching.inventory import how_to_get, survey
from clbench.datamodules.fetching.prepare import prepare
from clbench.datamodules.readers.read import locate, read
from tests.datamodules.archives import Server, remote
from tests.datamodules.coop_formats import FOLDERS
from tests.datamodules.disk_formats import write_all

MIRROR = {
    "Aircraft": "Aircraft",
    "Caltech101": "Caltech101",
    "CIFAR100": "cifar-100-python",
    "DTD": "DTD",
    "EuroSAT": "EuroSAT",
    "Flowers": "Flowers",
    "Food": "Food",
    "MNIST": "MNIST/MNIST/raw",
    "OxfordPet": "Pets",
    "StanfordCars": "StanfordCars",
    "SUN397": "Sun397/SUN397",
}
LAYOUTS = {
    "torchvision": {name: usual for name, (usual, _) in FOLDERS.items()},
    "CoOp and DIKI": {name: other for name, (_, other) in FOLDERS.items()},
    "X-TAIL mirror": MIRROR,
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("usual")
    with declared_counts(write_all(folder)):
        yield folder


def laid_out(usual: Path, root: Path, folders: dict[str, str]) -> Path:
    for name, folder in folders.items():
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(usual / FOLDERS[name][0], root / folder)
    return root


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_all_eleven_are_found_and_hold_the_same_images(
    layout: str, usual: Path, tmp_path: Path
) -> None:
    root = laid_out(usual, tmp_path, LAYOUTS[layout])
    for state in survey(list(CATALOG), root):
        assert (state.status, state.todo) == ("present", ""), state
        assert state.layout.endswith(f", {LAYOUTS[layout][state.name]}")
        theirs, (_, ours) = read(CATALOG[state.name], usual), locate(CATALOG[state.name], root)
        for before, after in ((theirs.train, ours.train), (theirs.test, ours.test)):
            assert before.digest() == after.digest()
            assert after.files is None or all((after.root / f).is_file() for f in after.files)
        assert theirs.class_names == ours.class_names


def test_what_is_made_of_the_images_is_the_same_in_all_layouts(usual: Path, tmp_path: Path) -> None:
    root = laid_out(usual, tmp_path, LAYOUTS["CoOp and DIKI"])
    made = []
    for data_root in (usual, root):
        order = ["Aircraft", "Flowers"]
        sequence = mtil.tasks(data_root=str(data_root), image_size=32, order=order, shots=2)
        made += [[sequence.train_set(t).digest(), sequence.test_set(t).digest()] for t in range(2)]
    assert made[:2] == made[2:]


def test_names_of_files_keep_what_results_were_recorded_with(usual: Path) -> None:
    """Torchvision's names of Aircraft's files begin with ``data/``; hashes of old results do."""
    train = read(CATALOG["Aircraft"], usual).train
    assert train.prefix == "data/"
    assert train.subset([0]).prefix == "data/"


def test_the_first_layout_that_can_be_read_counts(usual: Path, tmp_path: Path) -> None:
    root = laid_out(usual, tmp_path, {"DTD": "dtd/dtd"})
    shutil.copytree(usual / "dtd" / "dtd", root / "DTD")
    assert locate(CATALOG["DTD"], root)[0].layout == "torchvision"
    (root / "dtd" / "dtd" / "labels" / "test1.txt").unlink()
    assert locate(CATALOG["DTD"], root)[0].layout == "X-TAIL mirror"
    shutil.rmtree(root / "DTD")
    with pytest.raises(ClbenchError, match=r"dtd/dtd/labels/test1\.txt is missing"):
        read(CATALOG["DTD"], root)


def test_list_says_which_layout_it_found(usual: Path, tmp_path: Path) -> None:
    root = laid_out(usual, tmp_path, {"OxfordPet": "oxford_pets", "Food": "food-101"})
    shown = CliRunner().invoke(data_app, ["list", "mtil", "--root", str(root)]).stdout
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert lines["OxfordPet"].endswith("present: 24 images (layout of CoOp, oxford_pets)")
    assert lines["Food"].endswith("(layout of torchvision and CoOp, food-101)")
    assert "missing: no folder" in lines["DTD"]


def test_a_missing_file_is_added_to_the_folder_that_is_there(usual: Path, tmp_path: Path) -> None:
    root = laid_out(usual, tmp_path, {"Flowers": "oxford_flowers"})
    setid = root / "oxford_flowers" / "setid.mat"
    content = setid.read_bytes()
    setid.unlink()
    (state,) = survey(["Flowers"], root)
    assert state.status == "incomplete"
    assert "oxford_flowers/setid.mat is missing" in state.detail
    assert "(15 kB from www.robots.ox.ac.uk)" in state.todo
    files = (
        remote("102flowers.tgz", b"", target="flowers-102", unpack=(("jpg", "jpg"),)),
        remote("setid.mat", content, target="flowers-102"),
    )
    server = Server({"https://host/setid.mat": content})
    dataset = replace(CATALOG["Flowers"], sources=(Source("VGG", "a test", files),))
    prepare(dataset, root, opener=server)
    assert setid.read_bytes() == content
    assert sorted(path.name for path in root.iterdir()) == ["oxford_flowers"]
    assert [url for url, _ in server.asked] == ["https://host/setid.mat"]


def test_jpeg_copies_of_cifar_are_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "cifar100" / "train" / "000").mkdir(parents=True)
    (state,) = survey(["CIFAR100"], tmp_path)
    assert state.status == "missing"
    assert "JPEG copies of Dassl's, which are other pixels" in state.detail
    assert how_to_get(CATALOG["CIFAR100"], tmp_path) == state.todo


def test_every_data_set_has_torchvisions_place_first() -> None:
    assert set(CATALOG) < set(PLACES)
    for name, (first, *others) in PLACES.items():
        assert first.folder.split("/")[0] == data_set(name).folder
        assert len({place.folder for place in (first, *others)}) == len(others) + 1
