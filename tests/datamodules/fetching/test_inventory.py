"""What is there, what is wrong and what to do about it, before any training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import CATALOG, declared_counts
from clbench.datamodules.fetching.inventory import (
    check_files,
    check_images,
    how_to_get,
    require,
    survey,
)
from clbench.datamodules.fetching.prepare import prepare
from clbench.datamodules.readers.read import read
from tests.datamodules import disk_formats

NAMES = ["DTD", "Flowers", "MNIST", "StanfordCars"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    counts = {name: disk_formats.WRITERS[name](tmp_path) for name in NAMES}
    with declared_counts(counts):
        yield tmp_path


def test_complete_data_sets_are_present_and_pass(root: Path) -> None:
    states = survey(NAMES, root)
    assert [(s.name, s.status, s.todo) for s in states] == [(n, "present", "") for n in NAMES]
    assert states[0].detail == "24 images"
    require(NAMES, root)


def test_one_table_lists_all_that_is_not_ready(root: Path) -> None:
    shutil.rmtree(root / "dtd")
    (root / "flowers-102" / "jpg" / "image_00002.jpg").unlink()
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"x")
    shutil.rmtree(root / "stanford_cars")
    statuses = {state.name: state.status for state in survey(NAMES, root)}
    assert statuses == {
        "DTD": "missing",
        "Flowers": "incomplete",
        "MNIST": "damaged",
        "StanfordCars": "missing",
    }
    with pytest.raises(ClbenchError) as error:
        require(NAMES, root)
    first, header, dtd, flowers, mnist, cars = str(error.value).splitlines()
    assert first == "not all data sets are ready:"
    assert header.split("  ")[0] == "data set"
    assert f"missing: no folder {root / 'dtd'}" in dtd
    assert f"clbench data prepare DTD --root {root}  (625 MB from www.robots.ox.ac.uk)" in dtd
    assert "image_00002.jpg" in flowers
    assert "damaged: " in mnist
    assert "train-labels-idx1-ubyte" in mnist
    assert "get it again" not in mnist  # the cure has a column of its own
    assert f"by hand into {root / 'stanford_cars'}" in cars
    assert "https://github.com/pytorch/vision/issues/7545" in cars


def test_wrong_counts_are_incomplete(root: Path) -> None:
    with declared_counts({"DTD": (3, 18, 7)}):
        (state,) = survey(["DTD"], root)
    assert (state.status, state.detail) == ("incomplete", "6 test images, 7 expected (1 missing)")


def test_small_copies_are_refused_where_nothing_was_declared(tmp_path: Path) -> None:
    disk_formats.write_food(tmp_path)
    with pytest.raises(ClbenchError, match=r"3 classes, 101 expected \(98 missing\)"):
        require(["Food"], tmp_path)


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(ClbenchError, match="unknown data set 'Flower': did you mean 'Flowers'"):
        survey(["Flower"], Path())


def test_damaged_images_are_all_named(root: Path) -> None:
    images = root / "dtd" / "dtd" / "images" / "banded"
    truncated, empty = images / "banded_0001.jpg", images / "banded_0002.jpg"
    truncated.write_bytes(truncated.read_bytes()[:300])
    empty.write_bytes(b"")
    seen: list[tuple[int, int]] = []
    with pytest.raises(ClbenchError) as error:
        check_images(CATALOG["DTD"], root, read(CATALOG["DTD"], root), lambda *x: seen.append(x))
    assert f"DTD: 2 damaged of 24 images: {truncated}, {empty};" in str(error.value)
    assert f"`clbench data prepare DTD --root {root}` fetches" in str(error.value)
    assert seen[-1] == (24, 24)


def test_sound_images_of_every_kind_and_arrays_pass(root: Path) -> None:
    for name in NAMES:
        check_images(CATALOG[name], root, read(CATALOG[name], root))


def test_files_with_a_published_checksum_are_compared(root: Path) -> None:
    dataset = replace(CATALOG["Flowers"], checksums=(("flowers-102/setid.mat", "0" * 32),))
    with pytest.raises(ClbenchError, match=r"md5 sum differs.*setid\.mat; delete it"):
        check_files(dataset, root)
    check_files(CATALOG["Flowers"], root)


def test_what_macs_add_to_zip_files_is_not_seen(root: Path) -> None:
    (root / "dtd" / "dtd" / "images" / "__MACOSX").mkdir()
    (state,) = survey(["DTD"], root)
    assert (state.status, state.detail) == ("present", "24 images")


def test_too_much_is_to_be_removed_and_not_fetched_again(root: Path) -> None:
    (root / "dtd" / "dtd" / "images" / "zz_own").mkdir()
    (state,) = survey(["DTD"], root)
    assert state.status == "damaged"
    assert "1 too many" in state.detail
    assert state.todo == f"remove what does not belong into {root / 'dtd'}"
    with pytest.raises(ClbenchError, match=r"1 too many.*: remove what does not belong into"):
        prepare(CATALOG["DTD"], root)
    assert not (root / "downloads").exists()


def test_every_download_states_its_size(tmp_path: Path) -> None:
    for dataset in CATALOG.values():
        assert "size unknown" not in how_to_get(dataset, tmp_path)
