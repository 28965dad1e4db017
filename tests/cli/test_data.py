"""The commands `clbench data list`, `prepare` and `verify`."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clbench.cli.data import data_app, data_sets
from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import CATALOG, OTHERS, declared_counts
from clbench.datamodules.fetching import download
from clbench.datamodules.fetching.download import Stream
from clbench.datamodules.pixels import file_hashes
from tests.datamodules import disk_formats


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    names = ("DTD", "MNIST")
    counts = {name: disk_formats.WRITERS[name](tmp_path) for name in names}
    with declared_counts(counts):
        yield tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network: every address that is asked for ends here."""
    asked: list[str] = []

    def unreachable(url: str, start: int) -> Stream:
        asked.append(url)
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(download, "open_url", unreachable)
    return asked


def test_verify_without_data_lists_all_of_it_and_ends_with_2(tmp_path: Path) -> None:
    result = run("verify", "mtil", "--root", tmp_path / "nothing")
    assert result.exit_code == 2
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["data", "set", "state", "what", "to", "do"]
    assert [row.split()[0] for row in rows] == list(CATALOG)
    for row, dataset in zip(rows, CATALOG.values(), strict=True):
        assert f"missing: no folder {tmp_path / 'nothing' / dataset.folder}" in row
        assert f"clbench data prepare {dataset.name} --root {tmp_path / 'nothing'}" in row
    assert result.stderr == "clbench: 11 of 11 data sets are not ready\n"
    assert not (tmp_path / "nothing").exists()


def test_verify_passes_sound_data(root: Path) -> None:
    for name in ("dtd", "MNIST"):
        result = run("verify", name, "--root", root)
        assert result.exit_code == 0, result.stderr
        assert "present: 24 images" in result.stdout


def test_verify_names_a_damaged_image_unless_quick(root: Path) -> None:
    image = root / "dtd" / "dtd" / "images" / "banded" / "banded_0001.jpg"
    image.write_bytes(image.read_bytes()[:300])
    result = run("verify", "DTD", "--root", root)
    assert result.exit_code == 2
    assert str(image) in result.stderr
    assert result.stderr.count("\n") == 1
    assert run("verify", "DTD", "--root", root, "--quick").exit_code == 0


def test_verify_names_an_edit_that_keeps_the_size(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ("DTD", "--root", root, "--cache", cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_hashes, "SETTLED", -1.0)
        prepared = run("prepare", *command)
        assert prepared.exit_code == 0, prepared.stderr
        assert [path.name[:4] for path in (cache / "hashes").glob("*.npz")] == ["dtd-"]
        assert run("verify", *command).exit_code == 0
        image = root / "dtd" / "dtd" / "images" / "banded" / "banded_0001.jpg"
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 1
        image.write_bytes(content)
        assert run("verify", *command, "--quick").exit_code == 0
        result = run("verify", *command)
    assert result.exit_code == 2
    assert f"1 of 24 images do not hold what they held when they were last read: {image};" in (
        result.stderr
    )
    assert not (root / "hashes").exists()


def test_list_shows_state_and_size(root: Path) -> None:
    result = run("list", "all", "--root", root)
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "present: 24 images" in lines["DTD"]
    assert "39 GB from vision.princeton.edu" in lines["SUN397"]
    assert "by hand" in lines["StanfordCars"]


def test_list_looks_into_the_cache_folder_by_default(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(root / "cache"))
    result = run("list", "mnist")
    assert f"no folder {root / 'cache' / 'data' / 'MNIST'}" in result.stdout


def test_prepare_without_network_is_clear_and_leaves_nothing(
    tmp_path: Path, offline: list[str]
) -> None:
    result = run("prepare", "EuroSAT", "--root", tmp_path)
    assert result.exit_code == 2
    assert "EuroSAT could not be downloaded from any source" in result.stderr
    assert "cannot fetch https://huggingface.co/datasets/torchgeo/eurosat" in result.stderr
    assert "Network is unreachable" in result.stderr
    assert str(tmp_path / "downloads" / "EuroSAT") in result.stderr
    assert all(line.startswith("clbench: ") for line in result.stderr.splitlines())
    assert [url.split("/")[2] for url in offline] == ["huggingface.co", "zenodo.org"]
    assert list(tmp_path.iterdir()) == []


def test_prepare_goes_on_with_the_next_data_set(root: Path, offline: list[str]) -> None:
    result = run("prepare", "mtil", "--root", root)
    assert result.exit_code == 2
    assert result.stderr.count("could not be downloaded from any source") == 9
    assert "DTD: already present" in result.stdout
    assert "MNIST: already present" in result.stdout


def test_names_of_benchmarks_and_data_sets() -> None:
    assert data_sets("mtil") == data_sets("mtil-5shot") == list(CATALOG)
    assert data_sets("all") == [*CATALOG, *OTHERS]
    assert data_sets("xtail-16shot") == [name for name in CATALOG if name != "CIFAR100"]
    assert data_sets("imagenet-r-20step") == data_sets("imagenet-r") == ["ImageNet-R"]
    assert data_sets("tinyimagenet-5step") == ["TinyImageNet"]
    assert data_sets("domainnet") == ["DomainNet"]
    assert data_sets("cub200") == data_sets("cub-200") == ["CUB-200"]
    assert data_sets("cifar100-20step") == data_sets("CIFAR100") == ["CIFAR100"]
    assert data_sets("oxfordpet") == ["OxfordPet"]
    assert data_sets("mini-cil-10step") == []
    with pytest.raises(ClbenchError, match=r"unknown benchmark or data set 'mtli'.*'mtil'"):
        data_sets("mtli")


def test_benchmarks_without_data_say_so() -> None:
    result = run("verify", "mini")
    assert result.exit_code == 0
    assert "needs no data" in result.stdout


def test_unknown_names_end_with_2() -> None:
    result = run("prepare", "Flower")
    assert result.exit_code == 2
    assert "did you mean 'Flowers'" in result.stderr
