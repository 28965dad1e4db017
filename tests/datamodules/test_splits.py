from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import random_split as torch_split

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.splits import few_shot, random_split, random_split_indices


def samples(size: int = 30, classes: int = 3) -> Samples:
    arrays = np.arange(size * 4, dtype=np.uint8).reshape(size, 2, 2)
    return Samples(np.arange(size) % classes, Path(), arrays=arrays)


NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize("size", [5, 8677, 27000])
def test_the_split_is_torchs_random_split_with_seed_42(size: int) -> None:
    lengths = [int(0.8 * size), size - int(0.8 * size)]
    generator = torch.Generator().manual_seed(42)
    train, test = torch_split(range(size), lengths, generator=generator)  # type: ignore[arg-type]
    assert random_split_indices(size) == (sorted(train.indices), sorted(test.indices))


def test_the_published_sizes_come_out() -> None:
    sizes = {8677: (6941, 1736), 27000: (21600, 5400), 108754: (87003, 21751)}
    for total, expected in sizes.items():
        assert tuple(map(len, random_split_indices(total))) == expected


def test_a_split_uses_every_image_once_and_is_kept(tmp_path: Path) -> None:
    train, test = random_split("Toy", samples(), Cache(tmp_path))
    assert (len(train), len(test)) == (24, 6)
    pixels = [part.image(i).tobytes() for part in (train, test) for i in range(len(part))]
    assert len(set(pixels)) == 30
    stored = json.loads((tmp_path / "Toy-random-split.json").read_text())
    assert stored["indices"]["train"] == random_split_indices(30)[0]
    again = random_split("Toy", samples(), Cache(tmp_path))
    assert [part.digest() for part in again] == [train.digest(), test.digest()]


def test_the_stored_indices_are_what_is_used(tmp_path: Path) -> None:
    few_shot("Toy", samples(), NAMES, 2, 0, Cache(tmp_path))
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    file.write_text(text.replace('"train": [', '"train": [29, '))
    with pytest.raises(ClbenchError, match=r"Toy-2shot-seed0\.json is damaged: delete it"):
        few_shot("Toy", samples(), NAMES, 2, 0, Cache(tmp_path))


def test_a_changed_data_set_is_noticed(tmp_path: Path) -> None:
    random_split("Toy", samples(), Cache(tmp_path))
    with pytest.raises(ClbenchError, match=r"Toy has changed since .*Toy-random-split.json"):
        random_split("Toy", samples(29), Cache(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"indices": 3}'])
def test_a_damaged_index_file_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "Toy-random-split.json").write_text(content)
    with pytest.raises(ClbenchError, match="delete it to draw the split again") as caught:
        random_split("Toy", samples(), Cache(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    train, _ = random_split("Toy", samples(), Cache(tmp_path / "file" / "splits"))
    assert train.digest() == random_split("Toy", samples(), Cache(tmp_path))[0].digest()


def test_few_shot_draws_k_images_of_every_class(tmp_path: Path) -> None:
    drawn = few_shot("Toy", samples(), NAMES, 4, 0, Cache(tmp_path))
    assert np.bincount(drawn.labels).tolist() == [4, 4, 4]
    again = few_shot("Toy", samples(), NAMES, 4, 0, Cache(tmp_path / "elsewhere"))
    assert drawn.digest() == again.digest()


def test_shots_and_seed_have_index_files_of_their_own(tmp_path: Path) -> None:
    digests = {
        few_shot("Toy", samples(), NAMES, shots, seed, Cache(tmp_path)).digest()
        for shots, seed in [(2, 0), (2, 1), (3, 0)]
    }
    assert len(digests) == len(list(tmp_path.iterdir())) == 3


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"Toy: class 'ant' has 10 training .*shots=11"):
        few_shot("Toy", samples(), NAMES, 11, 0, Cache(tmp_path))
    with pytest.raises(ClbenchError, match="Toy: class 'dog' has 0 training images"):
        few_shot("Toy", samples(), (*NAMES, "dog"), 1, 0, Cache(tmp_path))
    assert list(tmp_path.iterdir()) == []
