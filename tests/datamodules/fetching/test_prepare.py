"""Making data sets ready from archives: sources in order, only what is missing, all or nothing."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue import sources
from clbench.datamodules.catalogue.catalogue import CATALOG, DataSet, declared_counts
from clbench.datamodules.catalogue.remote import Source
from clbench.datamodules.fetching.inventory import survey
from clbench.datamodules.fetching.prepare import download_folder, prepare
from clbench.datamodules.fetching.unpack import unpack
from clbench.datamodules.readers.read import check_counts, read
from tests.datamodules import disk_formats
from tests.datamodules.archives import Server, member, remote, tar_bytes, tar_of, zip_bytes


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Path]:
    """All data sets as they are when complete, away from the data root."""
    folder = tmp_path / "origin"
    writers = {n: disk_formats.WRITERS[n] for n in ("Caltech101", "EuroSAT", "OxfordPet", "DTD")}
    with declared_counts({name: write(folder) for name, write in writers.items()}):
        yield folder


def leftovers(root: Path) -> list[str]:
    """Everything beside the data sets' own folders."""
    folders = {d.folder for d in CATALOG.values()}
    return sorted(path.name for path in root.iterdir() if path.name not in folders)


def served(name: str, *given: Source, **contents: bytes) -> tuple[DataSet, Server]:
    """A data set with these sources, and a server that has their files."""
    server = Server({f"https://host/{f.replace('__', '.')}": c for f, c in contents.items()})
    return replace(CATALOG[name], sources=given), server


def dtd(origin: Path, content: bytes | None = None) -> tuple[Source, bytes]:
    content = content or tar_bytes(origin / "dtd", "dtd")
    file = remote("dtd.tar.gz", content, target="dtd", unpack=(("dtd", "dtd"),))
    return Source("VGG", "a test", (file,)), content


def test_an_archive_becomes_the_folder_that_torchvision_makes(origin: Path, tmp_path: Path) -> None:
    source, content = dtd(origin)
    dataset, server = served("DTD", source, dtd__tar__gz=content)
    assert prepare(dataset, tmp_path / "data", opener=server) is source
    check_counts(dataset, read(dataset, tmp_path / "data"))
    assert leftovers(tmp_path / "data") == []
    assert read(dataset, tmp_path / "data").train.digest() == read(dataset, origin).train.digest()
    assert prepare(dataset, tmp_path / "data", opener=server) is None
    assert len(server.asked) == 1


def test_the_archive_inside_caltechs_archive_is_unpacked_too(origin: Path, tmp_path: Path) -> None:
    inner = tar_bytes(origin / "caltech101", "101_ObjectCategories")
    (tmp_path / "zip" / "caltech-101").mkdir(parents=True)
    (tmp_path / "zip" / "caltech-101" / "101_ObjectCategories.tar.gz").write_bytes(inner)
    content = zip_bytes(tmp_path / "zip", {"caltech-101": "caltech-101"})
    (real,) = sources.CALTECH101.files
    file = remote("caltech-101.zip", content)
    file = replace(file, target=real.target, unpack=real.unpack, inner=real.inner)
    dataset = replace(CATALOG["Caltech101"], sources=(Source("x", "a test", (file,)),))
    prepare(dataset, tmp_path / "data", opener=Server({str(file.url): content}))
    check_counts(dataset, read(dataset, tmp_path / "data"))


def zenodo(origin: Path) -> tuple[DataSet, Server, Source]:
    """EuroSAT from its second source, whose archive names the folder otherwise."""
    content = zip_bytes(origin / "eurosat", {"2750": "EuroSAT_RGB"})
    first = Source("first", "a test", (remote("gone.zip", b"gone"),))
    file = replace(sources.EUROSAT_ZENODO.files[0], url="https://host/EuroSAT_RGB.zip")
    second = replace(sources.EUROSAT_ZENODO, files=(file,))
    dataset, server = served("EuroSAT", first, second, EuroSAT_RGB__zip=content)
    return dataset, server, second


def test_the_next_source_is_tried_and_unverified_images_are_all_opened(
    origin: Path, tmp_path: Path
) -> None:
    dataset, server, second = zenodo(origin)
    opened: list[tuple[int, int]] = []
    source = prepare(dataset, tmp_path / "data", opener=server, advance=lambda *x: opened.append(x))
    assert source is second
    assert [url for url, _ in server.asked] == [
        "https://host/gone.zip",
        "https://host/EuroSAT_RGB.zip",
    ]
    assert opened[-1] == (36, 36)
    assert read(dataset, tmp_path / "data").train.digest() == read(dataset, origin).train.digest()


def test_unverified_data_with_a_damaged_image_are_refused(origin: Path, tmp_path: Path) -> None:
    image = origin / "eurosat" / "2750" / "Forest" / "Forest_3.jpg"
    image.write_bytes(image.read_bytes()[:200])
    dataset, server, _ = zenodo(origin)
    with pytest.raises(ClbenchError, match=r"1 damaged of 36 images: .*Forest_3\.jpg"):
        prepare(dataset, tmp_path / "data", opener=server)


def test_an_archive_with_too_few_images_is_refused(origin: Path, tmp_path: Path) -> None:
    (origin / "eurosat" / "2750" / "Forest" / "Forest_3.jpg").unlink()
    dataset, server, _ = zenodo(origin)
    with pytest.raises(ClbenchError, match=r"EuroSAT: 35 images, 36 expected \(1 missing\)"):
        prepare(dataset, tmp_path / "data", opener=server)


def pets(origin: Path) -> tuple[DataSet, Server]:
    folder, files, contents = "oxford-iiit-pet", [], {}
    for name in ("images", "annotations"):
        content = tar_bytes(origin / folder, name)
        files.append(remote(f"{name}.tgz", content, target=folder, unpack=((name, name),)))
        contents[f"{name}__tgz"] = content
    return served("OxfordPet", Source("VGG", "a test", tuple(files)), **contents)


def test_only_what_is_missing_is_fetched(origin: Path, tmp_path: Path) -> None:
    dataset, server = pets(origin)
    shutil.copytree(origin / "oxford-iiit-pet" / "images", tmp_path / "data/oxford-iiit-pet/images")
    prepare(dataset, tmp_path / "data", opener=server)
    assert [url for url, _ in server.asked] == ["https://host/annotations.tgz"]


def test_a_truncated_archive_does_not_make_the_others_start_over(
    origin: Path, tmp_path: Path
) -> None:
    dataset, server = pets(origin)
    complete = server.files.pop("https://host/annotations.tgz")
    with pytest.raises(ClbenchError, match=r"VGG: cannot fetch https://host/annotations\.tgz"):
        prepare(dataset, tmp_path / "data", opener=server)
    server.files["https://host/annotations.tgz"] = complete
    server.asked.clear()
    prepare(dataset, tmp_path / "data", opener=server)
    assert [url for url, _ in server.asked] == ["https://host/annotations.tgz"]


def test_a_deleted_image_is_put_back_and_other_files_stay(origin: Path, tmp_path: Path) -> None:
    dataset, server = pets(origin)
    root = tmp_path / "data"
    prepare(dataset, root, opener=server)
    (root / "oxford-iiit-pet" / "images" / "Bengal_1.jpg").unlink()
    (root / "oxford-iiit-pet" / "mine.txt").write_text("mine")
    (root / "oxford-iiit-pet" / "images" / "mine.txt").write_text("mine")
    prepare(dataset, root, opener=server)
    check_counts(dataset, read(dataset, root))
    assert (root / "oxford-iiit-pet" / "mine.txt").read_text() == "mine"
    assert (root / "oxford-iiit-pet" / "images" / "mine.txt").read_text() == "mine"
    assert leftovers(root) == []


@pytest.mark.parametrize(
    "bad",
    [tar_of(member("../evil")), b"no archive", tar_of(member("x"))],
    ids=["outside", "no archive", "other folder"],
)
def test_a_bad_archive_leaves_nothing_half_written(
    bad: bytes, origin: Path, tmp_path: Path
) -> None:
    source, content = dtd(origin, bad)
    dataset, server = served("DTD", source, dtd__tar__gz=content)
    root = tmp_path / "data"
    with pytest.raises(ClbenchError, match=r"dtd\.tar\.gz") as error:
        prepare(dataset, root, opener=server)
    assert "dtd.tar.gz.damaged" in str(error.value)
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert [f for f in files if not f.endswith(".lock")] == ["downloads/DTD/dtd.tar.gz.damaged"]
    assert not list(tmp_path.rglob("*evil*"))
    assert leftovers(root) == ["downloads"]


def test_archives_put_there_by_hand_are_used_and_kept(origin: Path, tmp_path: Path) -> None:
    source, content = dtd(origin)
    hand = replace(source, files=(replace(source.files[0], url=None),), page="https://page")
    hand = replace(hand, note="the site is gone")
    dataset, server = served("DTD", hand, sources.BY_HAND)
    root = tmp_path / "data"
    with pytest.raises(ClbenchError) as error:
        prepare(dataset, root, opener=server)
    first, second, third = str(error.value).splitlines()
    assert first == "DTD could not be downloaded from any source:"
    assert f"put dtd.tar.gz into {download_folder(dataset, root)}" in second
    assert "the site is gone: https://page" in second
    assert sources.XTAIL in third
    assert leftovers(root) == []
    download_folder(dataset, root).mkdir(parents=True)
    archive = download_folder(dataset, root) / "dtd.tar.gz"
    archive.write_bytes(content)
    prepare(dataset, root, opener=server)
    check_counts(dataset, read(dataset, root))
    assert archive.exists()
    assert server.asked == []


def test_a_root_that_cannot_be_made_is_one_line(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dataset, server = pets(origin)
    with pytest.raises(ClbenchError, match=r"cannot write .*/file/downloads/OxfordPet"):
        prepare(dataset, tmp_path / "file", opener=server)


def test_a_prepared_data_set_is_present(origin: Path, tmp_path: Path) -> None:
    dataset, server = pets(origin)
    assert survey(["OxfordPet"], tmp_path / "data")[0].status == "missing"
    prepare(dataset, tmp_path / "data", opener=server)
    assert survey(["OxfordPet"], tmp_path / "data")[0].status == "present"


def test_a_disk_that_is_too_small_is_noticed_before_the_download(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, content = dtd(origin)
    source = replace(source, files=(replace(source.files[0], size=39_000_000_000),))
    dataset, server = served("DTD", source, dtd__tar__gz=content)
    usage = shutil.disk_usage(tmp_path)._replace(free=12_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ClbenchError, match=r"DTD needs about 78 GB .* 12 GB are free .*--root"):
        prepare(dataset, tmp_path / "data", opener=server)
    assert server.asked == []


def test_what_macs_add_to_zip_files_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("images/a.jpg", b"x")
        packed.writestr("__MACOSX/images/._a.jpg", b"x")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images"]
