"""Reading the real formats, with torchvision as the reference, and refusing damaged ones."""

from __future__ import annotations

import gzip
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tv
from PIL import Image
from torch.utils.data import random_split as torch_split

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue import catalogue as catalog
from clbench.datamodules.catalogue.catalogue import CATALOG, class_texts, declared_counts
from clbench.datamodules.mtil import official_splits
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.read import check_counts, read
from tests.datamodules import disk_formats

UNSPLIT = ("Caltech101", "EuroSAT", "SUN397")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("data")
    return root, disk_formats.write_all(root)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Writes one data set, declares its counts for the test, and returns the root."""
    contexts = []

    def write(name: str) -> Path:
        context = declared_counts({name: disk_formats.WRITERS[name](tmp_path)})
        context.__enter__()
        contexts.append(context)
        return tmp_path

    yield write
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def reference(name: str, root: Path, train: bool) -> Any:
    """The same split as torchvision reads it; it checks sums of two data sets that are small."""
    split = "train" if train else "test"
    builders: dict[str, Callable[[], Any]] = {
        "Aircraft": lambda: tv.FGVCAircraft(root, split),
        "Caltech101": lambda: tv.Caltech101(root),
        "CIFAR100": lambda: tv.CIFAR100(root, train),
        "DTD": lambda: tv.DTD(root, split),
        "EuroSAT": lambda: tv.EuroSAT(root),
        "Flowers": lambda: tv.Flowers102(root, split),
        "Food": lambda: tv.Food101(root, split),
        "MNIST": lambda: tv.MNIST(root, train),
        "OxfordPet": lambda: tv.OxfordIIITPet(root, "trainval" if train else "test"),
        "StanfordCars": lambda: tv.StanfordCars(root, split),
        "SUN397": lambda: tv.SUN397(root),
    }
    return builders[name]()


def gray_of_16_bits(samples: Samples, index: int) -> Image.Image | None:
    """An image as it is stored, if it has one channel of 16 bits."""
    if samples.files is None:
        return None
    with Image.open(samples.root / samples.files[index]) as image:
        return image.copy() if image.mode == "I;16" else None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torchvision leaves Caltech's files open
@pytest.mark.filterwarnings("ignore:dtype\\(\\)")  # the old pickles, as torchvision loads them
@pytest.mark.filterwarnings("ignore:numpy.core")
@pytest.mark.parametrize("name", list(disk_formats.WRITERS))
def test_images_labels_and_order_are_torchvisions(
    name: str, written: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, counts = written
    monkeypatch.setattr(tv.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(tv.cifar, "check_integrity", lambda *args: True)
    monkeypatch.setattr(tv.Flowers102, "_check_integrity", lambda self: True)
    with declared_counts(counts):
        contents = read(CATALOG[name], root)
        check_counts(CATALOG[name], contents)
    for train in (True,) if name in UNSPLIT else (True, False):
        ours, theirs = contents.train if train else contents.test, reference(name, root, train)
        assert len(ours) == len(theirs)
        indices = list(range(len(ours)))
        if name == "SUN397":  # torchvision's order is that of the directory
            indices = sorted(indices, key=lambda i: theirs._image_files[i])
        for ours_index, theirs_index in enumerate(indices):
            image, label = theirs[theirs_index]
            assert ours.labels[ours_index] == label
            expected = np.asarray(image.convert("RGB"))
            if deep := gray_of_16_bits(ours, ours_index):  # torchvision leaves them white
                assert (expected == 255).all()
                expected = np.stack([np.asarray(deep) >> 8] * 3, axis=-1)
            np.testing.assert_array_equal(ours.image(ours_index), expected)
        if name != "Flowers":
            classes = list(theirs.categories if name == "Caltech101" else theirs.classes)
            assert list(contents.class_names) == classes[: len(contents.class_names)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["Caltech101", "EuroSAT"])
def test_data_sets_that_torchvision_sorts_are_split_as_published(
    name: str, written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The published code gives torchvision's data set to `random_split`, seeded with 42."""
    root, counts = written
    theirs = reference(name, root, train=True)
    lengths = [int(0.8 * len(theirs)), len(theirs) - int(0.8 * len(theirs))]
    parts = torch_split(theirs, lengths, torch.Generator().manual_seed(42))
    with declared_counts(counts):
        ours = official_splits(name, root, Cache(tmp_path))
    for part, split in zip(parts, (ours.train, ours.test), strict=True):
        expected = [np.asarray(theirs[i][0].convert("RGB")) for i in sorted(part.indices)]
        assert split.labels.tolist() == [theirs[i][1] for i in sorted(part.indices)]
        for index, pixels in enumerate(expected):
            if gray_of_16_bits(split, index) is None:
                np.testing.assert_array_equal(split.image(index), pixels)


def test_every_kind_of_image_is_among_the_files(written: tuple[Path, dict[str, Any]]) -> None:
    modes, orientations = set(), set()
    for path in (written[0] / "eurosat" / "2750" / "Forest").iterdir():
        with Image.open(path) as image:
            modes.add(image.mode)
            orientations.add(image.getexif().get(disk_formats.ORIENTATION))
    assert modes == {"RGB", "L", "CMYK", "P", "I;16"}
    assert orientations == {None, 6}


def test_unsplit_data_sets_are_sorted_whatever_the_order_of_the_directory(
    written: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, counts = written

    class Reversed:
        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return sorted(self.entries, key=lambda e: e.name, reverse=True)

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    scandir = os.scandir
    with declared_counts(counts):
        before = {name: read(CATALOG[name], root) for name in UNSPLIT}
        monkeypatch.setattr(os, "scandir", Reversed)
        after = {name: read(CATALOG[name], root) for name in UNSPLIT}
    for name in UNSPLIT:
        assert before[name].train.files == after[name].train.files
        assert before[name].class_names == after[name].class_names
        assert list(before[name].train.files or ()) == sorted(before[name].train.files or ())
        assert len(before[name].test) == 0


def test_background_images_and_validation_images_are_left_out(
    written: tuple[Path, dict[str, Any]],
) -> None:
    root, counts = written
    with declared_counts(counts):
        caltech = read(CATALOG["Caltech101"], root)
        aircraft = read(CATALOG["Aircraft"], root)
    assert not any("BACKGROUND" in file for file in caltech.train.files or ())
    val = (root / "fgvc-aircraft-2013b/data/images_variant_val.txt").read_text().split()[::2]
    used = {Path(f).stem for f in (*(aircraft.train.files or ()), *(aircraft.test.files or ()))}
    assert used.isdisjoint(val)


def test_a_class_absent_from_one_dtd_split_does_not_shift_labels(
    small: Callable[[str], Path],
) -> None:
    root = small("DTD")
    listed = root / "dtd" / "dtd" / "labels" / "test1.txt"
    kept = [line for line in listed.read_text().splitlines() if not line.startswith("banded")]
    disk_formats.write_lines(listed, kept)
    contents = read(CATALOG["DTD"], root)
    assert contents.test.labels.tolist() == [1, 1, 2, 2]
    assert contents.class_names == ("banded", "blotchy", "zigzagged")


def test_compressed_mnist_files_are_read_as_the_plain_ones(tmp_path: Path) -> None:
    counts = disk_formats.write_mnist(tmp_path / "plain")
    disk_formats.write_mnist(tmp_path / "packed", compressed=True)
    with declared_counts({"MNIST": counts}):
        plain = read(CATALOG["MNIST"], tmp_path / "plain")
        packed = read(CATALOG["MNIST"], tmp_path / "packed")
    assert plain.train.digest() == packed.train.digest()
    assert plain.test.digest() == packed.test.digest()


def real_mnist() -> Path | None:
    """The folder of the real MNIST test files: $CLBENCH_REAL_MNIST, or near the repository."""
    parents = Path(__file__).resolve().parents
    folders = [Path(os.environ.get("CLBENCH_REAL_MNIST", "/nonexistent"))]
    folders += [parent / "shared" / "data" / "mnist" for parent in parents]
    found = (f for f in folders if (f / "t10k-images-idx3-ubyte.gz").is_file())
    return next(found, None)


def test_the_real_mnist_test_set(tmp_path: Path) -> None:
    folder = real_mnist()
    if folder is None:
        pytest.skip("no real MNIST files: set CLBENCH_REAL_MNIST to the folder of t10k-*.gz")
    _, train, _ = disk_formats.write_mnist(tmp_path)
    for path in folder.glob("t10k-*.gz"):
        shutil.copyfile(path, tmp_path / "MNIST" / "raw" / path.name)
        (tmp_path / "MNIST" / "raw" / path.stem).unlink()
    with declared_counts({"MNIST": (10, train, 10000)}):
        contents = read(CATALOG["MNIST"], tmp_path)
        check_counts(CATALOG["MNIST"], contents)
    counts = np.bincount(contents.test.labels).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert contents.test.image(0).size == (28, 28)
    assert contents.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def contents(dataset: catalog.DataSet, classes: int, train: int, test: int) -> Contents:
    def split(size: int) -> Samples:
        return Samples(np.zeros(size, dtype=np.int64), Path(), files=("x",) * size)

    first, last = dataset.ends or ("a", "z")
    names = (first, *(f"class {i}" for i in range(classes - 2)), last)
    return Contents(split(train), split(test), names)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("Flowers", (102, 1020, 6148), "Flowers: 6148 test images, 6149 expected (1 missing)"),
        ("DTD", (47, 1890, 1880), "DTD: 1890 training images, 1880 expected (10 too many)"),
        ("OxfordPet", (36, 3680, 3669), "OxfordPet: 36 classes, 37 expected (1 missing)"),
        ("SUN397", (397, 108753, 0), "SUN397: 108753 images, 108754 expected (1 missing)"),
        ("SUN397", (397, 87003, 21750), "SUN397: 21750 test images, 21751 expected (1 missing)"),
    ],
)
def test_a_count_that_differs_says_by_how_much(
    name: str, sizes: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ClbenchError) as error:
        check_counts(CATALOG[name], contents(CATALOG[name], *sizes))
    assert str(error.value) == message


@pytest.mark.parametrize("name", list(CATALOG))
def test_published_counts_pass(name: str) -> None:
    d = CATALOG[name]
    check_counts(d, contents(d, d.classes, d.train, d.test))


def test_other_class_names_and_doubled_ones_are_refused() -> None:
    food = CATALOG["Food"]
    other = contents(replace(food, ends=("apple pie", "waffles")), 101, 75750, 25250)
    with pytest.raises(ClbenchError, match=r"run from 'apple pie'.*expected from 'apple_pie'"):
        check_counts(food, other)
    doubled = replace(other, class_names=("a",) * 101)
    with pytest.raises(ClbenchError, match="two classes have the same name"):
        check_counts(food, doubled)


def put(text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda path: path.write_bytes(data)


def append(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text() + text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def save_mat(**variables: object) -> Callable[[Path], object]:
    return lambda path: scipy.io.savemat(path, variables)


ROWS = np.zeros((2, 3072), dtype=np.uint8)
AIRCRAFT, FLOWERS, CARS = "fgvc-aircraft-2013b/data", "flowers-102", "stanford_cars"
DAMAGES: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("Aircraft", "fgvc-aircraft-2013b", remove, "variants.txt is missing"),
    ("Aircraft", f"{AIRCRAFT}/variants.txt", put(""), "is empty"),
    ("Aircraft", f"{AIRCRAFT}/variants.txt", put(b"\xff\xfe\xfa"), "variants.txt is damaged"),
    ("Aircraft", f"{AIRCRAFT}/images_variant_test.txt", append("1 Zeppelin\n"), "'1 Zeppelin'"),
    ("Aircraft", f"{AIRCRAFT}/images_variant_test.txt", append("9 F/A-18\n"), "9.jpg, listed in"),
    ("Aircraft", f"{AIRCRAFT}/images", remove, "and 17 more images, listed in"),
    ("Caltech101", "caltech101/101_ObjectCategories", remove, "101_ObjectCategories is missing"),
    (
        "Caltech101",
        "caltech101/101_ObjectCategories/Faces/tmp.mat",
        put("x"),
        "unexpected file .*Faces/tmp.mat",
    ),
    ("CIFAR100", "cifar-100-python/meta", remove, "meta is missing"),
    ("CIFAR100", "cifar-100-python/train", cut, "train is damaged"),
    ("CIFAR100", "cifar-100-python/test", put(b""), "test is damaged"),
    ("CIFAR100", "cifar-100-python/test", put(b"\x80\x02]."), "test is damaged: not a dict"),
    (
        "CIFAR100",
        "cifar-100-python/train",
        put(disk_formats.python2_pickle({b"data": ROWS, b"fine_labels": [0]})),
        "does not hold 3072 bytes for each label",
    ),
    (
        "CIFAR100",
        "cifar-100-python/train",
        put(disk_formats.python2_pickle({b"data": ROWS, b"fine_labels": [0, 100]})),
        "label 100, counted from 0, but there are 100 classes",
    ),
    ("DTD", "dtd/dtd/labels/train1.txt", append("plaid.jpg\n"), "unexpected line: 'plaid.jpg'"),
    ("DTD", "dtd/dtd/images/banded/banded_0001.jpg", remove, "banded_0001.jpg, listed in"),
    (
        "DTD",
        "dtd/dtd/labels/train1.txt",
        append("banded/banded_0001.jpg\n"),
        "lists images/banded/banded_0001.jpg twice",
    ),
    ("EuroSAT", "eurosat/2750", remove, "2750 is missing"),
    ("Flowers", f"{FLOWERS}/setid.mat", remove, "setid.mat is missing"),
    ("Flowers", f"{FLOWERS}/imagelabels.mat", cut, "imagelabels.mat is damaged"),
    ("Flowers", f"{FLOWERS}/imagelabels.mat", put("no"), "imagelabels.mat is damaged"),
    ("Flowers", f"{FLOWERS}/setid.mat", save_mat(other=1), "has no variable 'trnid'"),
    (
        "Flowers",
        f"{FLOWERS}/setid.mat",
        save_mat(trnid=[1], tstid=[28]),
        "tstid names images without a label",
    ),
    (
        "Flowers",
        f"{FLOWERS}/imagelabels.mat",
        save_mat(labels=np.arange(27)),
        "label -?[0-9]+, counted from 0",
    ),
    ("Flowers", f"{FLOWERS}/jpg/image_00001.jpg", remove, "image_00001.jpg, listed in"),
    ("Food", "food-101/meta/test.json", cut, "test.json is damaged"),
    ("Food", "food-101/meta/test.json", put("[]"), "is not an object of lists"),
    (
        "Food",
        "food-101/meta/test.json",
        put('{"apple_pie": ["../1"], "baby_back_ribs": [], "baklava": []}'),
        "apple_pie/number",
    ),
    ("Food", "food-101/meta/classes.txt", append("waffles\n"), "name different classes"),
    ("MNIST", "MNIST/raw/t10k-labels-idx1-ubyte", remove, r"t10k-labels-idx1-ubyte \(or .gz\)"),
    ("MNIST", "MNIST/raw/train-images-idx3-ubyte", cut, "is damaged: .* bytes for shape"),
    ("MNIST", "MNIST/raw/train-images-idx3-ubyte", put("no idx file"), "is not an idx file"),
    ("MNIST", "MNIST/raw/train-images-idx3-ubyte", put("x"), "is damaged"),
    ("OxfordPet", "oxford-iiit-pet/annotations/test.txt", append("cat\n"), "line: 'cat'"),
    (
        "OxfordPet",
        "oxford-iiit-pet/annotations/test.txt",
        append("Bengal_9 1 1 1\n"),
        "class 1 is Abyssinian but also Bengal",
    ),
    ("StanfordCars", f"{CARS}/devkit", remove, "cars_meta.mat is missing"),
    ("StanfordCars", f"{CARS}/cars_test_annos_withlabels.mat", remove, "withlabels.mat is missing"),
    (
        "StanfordCars",
        f"{CARS}/cars_test_annos_withlabels.mat",
        save_mat(annotations=[1, 2]),
        "has no fields 'fname' and 'class'",
    ),
    ("StanfordCars", f"{CARS}/cars_test/00002.jpg", remove, "00002.jpg, listed in"),
    ("SUN397", "SUN397/a/abbey", remove, "abbey is missing"),
    ("SUN397", "SUN397/ClassName.txt", put("abbey\n"), "unexpected line: 'abbey'"),
]


@pytest.mark.parametrize(("name", "path", "damage", "message"), DAMAGES)
def test_damage_is_one_line_that_names_the_file_and_the_cure(
    name: str,
    path: str,
    damage: Callable[[Path], object],
    message: str,
    small: Callable[[str], Path],
) -> None:
    root = small(name)
    damage(root / path)
    with pytest.raises(ClbenchError, match=message) as error:
        read(CATALOG[name], root)
    text = str(error.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert f"clbench data prepare {name} --root {root}" in text


def test_a_truncated_gzip_file_is_damaged(tmp_path: Path) -> None:
    with declared_counts({"MNIST": disk_formats.write_mnist(tmp_path, compressed=True)}):
        cut(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz")
        with pytest.raises(ClbenchError, match=r"train-images-idx3-ubyte\.gz is damaged"):
            read(CATALOG["MNIST"], tmp_path)
        packed = gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12)
        (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(packed)
        with pytest.raises(ClbenchError, match="0 bytes for shape"):
            read(CATALOG["MNIST"], tmp_path)


def test_a_pickle_that_asks_for_anything_else_is_not_run(small: Callable[[str], Path]) -> None:
    root = small("CIFAR100")
    target = root / "executed"
    attack = f"cos\nmkdir\n(V{target}\ntR.".encode()
    (root / "cifar-100-python" / "meta").write_bytes(b"\x80\x02" + attack)
    with pytest.raises(ClbenchError, match=r"meta is damaged: it asks for os\.mkdir"):
        read(CATALOG["CIFAR100"], root)
    assert not target.exists()


def test_reading_cifar_gives_no_warning_of_numpys(written: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings(), declared_counts(written[1]):
        warnings.simplefilter("error")
        assert len(read(CATALOG["CIFAR100"], written[0]).test) == 200


def test_handwritten_names_replace_those_on_disk_by_position() -> None:
    texts = class_texts("Caltech101", [f"folder_{i}" for i in range(101)])
    assert texts.names[:2] == ("off-center face", "centered face")
    assert texts.names[29] == "head of a  crocodile"
    assert texts.prompts[2][0] == "a photo of a leopard."
    assert len(texts.prompts[0]) == 34


@pytest.mark.parametrize(
    ("name", "on_disk", "prompt", "templates"),
    [
        ("Aircraft", "F/A-18", "a photo of a F/A-18, a type of aircraft.", 2),
        ("CIFAR100", "aquarium_fish", "a photo of a aquarium fish.", 18),
        ("CIFAR100-CIL", "aquarium_fish", "a bad photo of a aquarium fish.", 1),
        ("DTD", "cobwebbed", "a photo of a cobwebbed texture.", 8),
        ("Food", "apple_pie", "a photo of a apple pie, a type of food.", 1),
        ("MNIST", "0 - zero", 'a photo of the number: "0 - zero".', 1),
        ("OxfordPet", "Abyssinian", "a photo of a Abyssinian, a type of pet.", 1),
        ("StanfordCars", "AM General", "a photo of a AM General, a type of car.", 9),
        ("SUN397", "apse/indoor_x", "a photo of a apse/indoor x.", 2),
    ],
)
def test_names_on_disk_lose_their_underscores_and_nothing_else(
    name: str, on_disk: str, prompt: str, templates: int
) -> None:
    (prompts,) = class_texts(name, [on_disk]).prompts
    assert prompts[0] == prompt
    assert len(prompts) == templates


def test_handwritten_names_need_the_complete_data_set_unless_declared_smaller() -> None:
    with pytest.raises(ClbenchError, match="EuroSAT: 3 classes, but the protocol names 10"):
        class_texts("EuroSAT", ["a", "b", "c"])
    with declared_counts({"EuroSAT": (3, 28, 8)}):
        assert class_texts("EuroSAT", ["a", "b", "c"]).names[1] == "forest"
        with pytest.raises(ClbenchError, match="2 classes"):
            class_texts("EuroSAT", ["a", "b"])
    with pytest.raises(ClbenchError, match="unknown data set 'EuroSet': did you mean 'EuroSAT'"):
        class_texts("EuroSet", ["a"])


def test_declared_counts_end_with_the_block_even_after_an_error() -> None:
    before = dict(CATALOG)

    def fail() -> None:
        with declared_counts({"Food": (3, 18, 6)}):
            assert CATALOG["Food"].total == 24
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        fail()
    assert before == CATALOG
    assert list(before) == list(CATALOG)
