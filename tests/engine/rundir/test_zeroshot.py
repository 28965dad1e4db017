"""The remembered zero-shot row belongs to exactly what it was measured on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clbench.engine.rundir.zeroshot import ZeroShotCache

IDENTITY = {"backbone": "f1", "tests": ["a", "b"], "precision": "fp32"}
ROW = {"arrows": [True, False, True], "flags": [False, False]}


def test_the_row_comes_back_image_by_image(tmp_path: Path) -> None:
    cache = ZeroShotCache(tmp_path, IDENTITY)
    assert cache.load() is None
    cache.save(ROW)
    loaded = ZeroShotCache(tmp_path, IDENTITY).load()
    assert {task: bits.tolist() for task, bits in loaded.items()} == ROW


@pytest.mark.parametrize(
    "change", [{"backbone": "f2"}, {"tests": ["b", "a"]}, {"precision": "bf16"}, {"more": 1}]
)
def test_another_identity_has_no_row(tmp_path: Path, change: dict[str, object]) -> None:
    cache = ZeroShotCache(tmp_path, IDENTITY)
    cache.save(ROW)
    other = ZeroShotCache(tmp_path, IDENTITY | change)
    assert other.path != cache.path
    assert other.load() is None
    cache.path.rename(other.path)
    assert other.load() is None, "the name alone is not believed"


def test_the_order_of_keys_is_no_difference(tmp_path: Path) -> None:
    ZeroShotCache(tmp_path, IDENTITY).save(ROW)
    assert ZeroShotCache(tmp_path, dict(reversed(IDENTITY.items()))).load() is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"identity": 1}', "null"])
def test_a_damaged_file_counts_as_unknown(tmp_path: Path, text: str) -> None:
    cache = ZeroShotCache(tmp_path, IDENTITY)
    cache.path.write_text(text)
    assert cache.load() is None


@pytest.mark.parametrize("bits", ["", "!", "AAAA", None, 3])
def test_damaged_bits_count_as_unknown(tmp_path: Path, bits: object) -> None:
    cache = ZeroShotCache(tmp_path, IDENTITY)
    cache.save(ROW)
    content = json.loads(cache.path.read_text()) | {"correct": bits}
    cache.path.write_text(json.dumps(content))
    assert cache.load() is None


def test_arrays_are_kept_as_bits(tmp_path: Path) -> None:
    cache = ZeroShotCache(tmp_path, IDENTITY)
    cache.save({"arrows": np.arange(9) % 2})
    assert cache.load()["arrows"].tolist() == [bool(i % 2) for i in range(9)]
