"""The registry of data sets: published sizes, and checksums that are torchvision's own."""

from __future__ import annotations

import inspect
import re

import pytest
import torchvision.datasets as tv

from clbench.datamodules.catalogue import sources
from clbench.datamodules.catalogue.catalogue import CATALOG, published_names
from clbench.datamodules.catalogue.remote import RemoteFile, Source
from clbench.datamodules.fetching.inventory import readable_size

EVERY = [(d.name, s) for d in CATALOG.values() for s in d.sources]
FILES = [(name, source, file) for name, source in EVERY for file in source.files]


def test_order_and_sizes_are_those_of_mtil() -> None:
    assert list(CATALOG) == sorted(CATALOG, key=str.lower)
    assert len(CATALOG) == 11
    assert sum(d.classes for d in CATALOG.values()) == 1201
    sizes = {name: (d.train, d.test) for name, d in CATALOG.items() if d.random_split}
    assert sizes == {"Caltech101": (6941, 1736), "EuroSAT": (21600, 5400), "SUN397": (87003, 21751)}
    assert CATALOG["Aircraft"].train == 3334


@pytest.mark.parametrize("name", [name for name, d in CATALOG.items() if d.random_split])
def test_sizes_without_a_published_split_are_four_fifths(name: str) -> None:
    assert CATALOG[name].train == int(0.8 * CATALOG[name].total)


@pytest.mark.parametrize("name", list(CATALOG))
def test_handwritten_names_are_as_many_as_classes(name: str) -> None:
    names = published_names(name)
    assert names is None or len(names) == CATALOG[name].classes


def test_flowers_names_are_torchvisions_where_these_are_sound() -> None:
    ours, theirs = published_names("Flowers"), tv.Flowers102.classes
    assert ours is not None
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same > 80  # the protocol respells the others


def checksums(source: Source) -> dict[str, str | None]:
    return {file.name: file.checksum for file in source.files}


def test_checksums_are_those_of_the_installed_torchvision() -> None:
    assert checksums(sources.CIFAR100) == {
        tv.CIFAR100.filename: f"md5:{tv.CIFAR100.tgz_md5}",
    }
    assert CATALOG["CIFAR100"].checksums == (
        ("cifar-100-python/train", tv.CIFAR100.train_list[0][1]),
        ("cifar-100-python/test", tv.CIFAR100.test_list[0][1]),
        ("cifar-100-python/meta", tv.CIFAR100.meta["md5"]),
    )
    assert checksums(sources.DTD) == {"dtd-r1.0.1.tar.gz": f"md5:{tv.DTD._MD5}"}
    assert checksums(sources.FOOD) == {"food-101.tar.gz": f"md5:{tv.Food101._MD5}"}
    assert checksums(sources.SUN397) == {"SUN397.tar.gz": f"md5:{tv.SUN397._DATASET_MD5}"}
    mnist = {name: f"md5:{md5}" for name, md5 in tv.MNIST.resources}
    assert checksums(sources.MNIST) == mnist
    assert checksums(sources.MNIST_GOOGLE) == mnist
    flowers = tv.Flowers102._file_dict.values()
    assert checksums(sources.FLOWERS) == {name: f"md5:{md5}" for name, md5 in flowers}
    pets = tv.OxfordIIITPet._RESOURCES
    assert checksums(sources.PETS) == {url.split("/")[-1]: f"md5:{md5}" for url, md5 in pets}


@pytest.mark.parametrize(
    ("source", "reference"), [(sources.CALTECH101, tv.Caltech101), (sources.EUROSAT, tv.EuroSAT)]
)
def test_checksums_inside_torchvisions_functions(source: Source, reference: type) -> None:
    (file,), code = source.files, inspect.getsource(reference)
    assert f'md5="{(file.checksum or "").removeprefix("md5:")}"' in code
    assert f'"{file.url}"' in code


@pytest.mark.parametrize(
    ("source", "url"),
    [
        (sources.AIRCRAFT, tv.FGVCAircraft._URL),
        (sources.CIFAR100, tv.CIFAR100.url),
        (sources.DTD, tv.DTD._URL),
        (sources.FOOD, tv.Food101._URL),
        (sources.SUN397, tv.SUN397._DATASET_URL.replace("http:", "https:")),
    ],
)
def test_addresses_are_torchvisions(source: Source, url: str) -> None:
    assert source.files[0].url == url


@pytest.mark.parametrize(("name", "source", "file"), FILES)
def test_files_are_protected_by_tls_or_a_checksum(
    name: str, source: Source, file: RemoteFile
) -> None:
    assert file.url is None or file.url.startswith("https://") or file.checksum
    assert file.checksum is None or re.fullmatch(
        "md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum
    )
    assert ".." not in file.target
    assert not file.target.startswith("/")


@pytest.mark.parametrize(("name", "source"), EVERY)
def test_sources_say_where_they_were_read_and_whether_they_are_verified(
    name: str, source: Source
) -> None:
    assert source.cite
    assert source.verified == bool(source.files and all(f.checksum for f in source.files))
    assert source.automatic or source.page
    assert source.verified or source.note


@pytest.mark.parametrize("name", list(CATALOG))
def test_what_a_source_unpacks_is_what_the_reader_looks_for(name: str) -> None:
    dataset = CATALOG[name]
    for source in dataset.sources:
        for file in source.files:
            places = [f"{file.target}/{out}" for _, out in file.unpack] or [file.target]
            assert all(p.lstrip("/").split("/")[0] == dataset.folder for p in places)


def test_hugging_face_addresses_have_a_pinned_revision() -> None:
    addresses = [f.url for _, _, f in FILES if f.url and "huggingface.co" in f.url]
    assert addresses
    assert all(re.search("/resolve/[0-9a-f]{40}/", url) for url in addresses)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (28_881, "29 kB"),
        (4_996_278_331, "5 GB"),
        (39_077_296_924, "39 GB"),
        (5_000, "5 kB"),
    ],
)
def test_sizes_are_shown_in_the_unit_that_fits(size: int, text: str) -> None:
    assert readable_size(size) == text
