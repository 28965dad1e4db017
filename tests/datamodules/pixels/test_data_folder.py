"""Where files are kept that cost time to make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clbench import config
from clbench.datamodules import mtil
from clbench.datamodules.catalogue.catalogue import declared_counts
from clbench.datamodules.pixels.data_folder import Cache, data_cache
from tests.datamodules.disk_formats import write_eurosat


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("CLBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder read-only for whoever asks, the superuser of a container included."""

    def make(root: Path) -> None:
        ask = os.access

        def answer(path: Path, mode: int) -> bool:
            return ask(path, mode) and (not mode & os.W_OK or not Path(path).is_relative_to(root))

        monkeypatch.setattr(os, "access", answer)

    return make


def test_files_are_kept_beside_the_data_unless_told_otherwise(
    tmp_path: Path, home: Path, lock: Callable[[Path], None]
) -> None:
    root, other = tmp_path / "data", tmp_path / "other"
    root.mkdir()
    assert data_cache(root, None) == Cache(root)
    assert data_cache(None, None) == Cache(home / "data")
    assert data_cache(root, other) == Cache(other, root)
    assert data_cache(root, root) == Cache(root)
    lock(root)
    assert data_cache(root, None) == Cache(home / "data", root)
    assert data_cache(root / "not" / "there", None).folder == home / "data"
    assert data_cache(root, other) == Cache(other, root)


def test_a_read_only_folder_of_data_is_decoded_once_for_all_runs(
    tmp_path: Path, home: Path, lock: Callable[[Path], None]
) -> None:
    root = tmp_path / "data"
    with declared_counts({"EuroSAT": write_eurosat(root)}):
        lock(root)
        before = sorted(root.rglob("*"))

        def images(**options: object) -> object:
            sequence = mtil.tasks(
                order=["EuroSAT"], data_root=str(root), image_size=16, shots=2, **options
            )  # type: ignore[arg-type]
            cached = sequence.test_set(0).file.cached  # type: ignore[attr-defined]
            sequence.prepare(config.resolve("nusa", "mtil")[0].train, quiet=True)
            return cached, sequence.test_set(0)

        assert images()[0] is False  # type: ignore[index]
        assert images()[0] is True  # type: ignore[index]
        own = images(cache_root=str(tmp_path / "own"))[0]  # type: ignore[index]
        assert own is False
    assert sorted(root.rglob("*")) == before
    for folder in (home / "data", tmp_path / "own"):
        assert len(list((folder / "decoded").glob("EuroSAT-test*.npy"))) == 1
        assert len(list((folder / "splits").glob("*.json"))) == 2


def test_a_data_set_may_be_a_symbolic_link(tmp_path: Path) -> None:
    with declared_counts({"EuroSAT": write_eurosat(tmp_path / "disk")}):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "eurosat").symlink_to(tmp_path / "disk" / "eurosat")
        sequences = [
            mtil.tasks(order=["EuroSAT"], data_root=str(tmp_path / name), image_size=16)
            for name in ("disk", "data")
        ]
        first, second = (sequence.test_set(0) for sequence in sequences)
        assert first.digest() == second.digest()
        pixels = [images.__getitems__(range(len(images)))[0] for images in (first, second)]
        assert torch.equal(*pixels)
