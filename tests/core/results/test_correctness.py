"""Per-image correctness as files: exact, checked, and tied to the accuracy matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import (
    FOLDER,
    decode_rows,
    disagreement,
    drop_rows,
    encode_row,
    read_rows,
    write_row,
)
from clbench.core.results.matrix import AccuracyMatrix

ROW = {"a": np.arange(9) % 3 == 0, "b": np.ones(1, bool), "c": np.zeros(16, bool)}
MATRIX = AccuracyMatrix.from_lists(["a", "b"], [[0.5, 1.0], [1.0, 0.0], [0.25, 1.0]], [4, 1])
BITS = {
    0: {"a": np.array([1, 0, 1, 0], bool), "b": np.array([1], bool)},
    1: {"a": np.array([1, 1, 1, 1], bool), "b": np.array([0], bool)},
    2: {"a": np.array([0, 0, 0, 1], bool), "b": np.array([1], bool)},
}


def test_rows_come_back_bit_by_bit() -> None:
    content = encode_row(0, ROW) + encode_row(12, {}) + encode_row(3, {"a": [False, True]})
    rows = decode_rows(content)
    assert list(rows) == [0, 12, 3]
    assert rows[12] == {}
    for task, bits in ROW.items():
        np.testing.assert_array_equal(rows[0][task], bits)
    assert rows[3]["a"].tolist() == [False, True]


def test_a_thousand_images_take_little_room() -> None:
    assert len(encode_row(1, {"a": np.ones(1000, bool)})) < 125 + 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1], "hash"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "hash"),
        (lambda c: c + b"rest", "no header"),
        (lambda c: c.replace(b'["a", 9, 3]', b'["a", 9, 4]'), "number of correct"),
        (lambda c: c.replace(b'["a", 9, 3]', b'["a", 3, 9]'), "not of the format"),
        (lambda c: c.replace(b"correct/1", b"correct/2"), "not of the format"),
    ],
)
def test_damage_is_noticed(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match=message):
        decode_rows(change(encode_row(0, ROW)))


def test_a_run_directory_replaces_and_forgets_rows(tmp_path: Path) -> None:
    for learned in range(4):
        write_row(tmp_path, learned, {"a": [False]})
    write_row(tmp_path, 1, {"a": [True]})
    drop_rows(tmp_path, 2)
    rows = read_rows(tmp_path / "result.json")
    assert {t: row["a"].tolist() for t, row in rows.items()} == {0: [False], 1: [True], 2: [False]}


def test_collected_results_have_their_rows_in_one_file(tmp_path: Path) -> None:
    write_row(tmp_path, 0, {"a": [False]})  # those of another run
    result = tmp_path / "nusa-seed0.json"
    assert read_rows(result) == {}
    result.with_suffix(".bits").write_bytes(encode_row(0, ROW) + encode_row(1, ROW))
    assert list(read_rows(result)) == [0, 1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_row(tmp_path, 5, ROW)
    path = tmp_path / FOLDER / "row-005.bits"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ClbenchError, match=r"row-005\.bits is damaged"):
        read_rows(tmp_path / "result.json")


def test_bits_agree_with_the_matrix_they_belong_to() -> None:
    assert disagreement(BITS, MATRIX) is None
    partial = AccuracyMatrix.from_lists(["a", "b"], [[0.5, 1.0], [1.0, 0.0], [None] * 2], [4, 1])
    assert disagreement({t: BITS[t] for t in (0, 1)}, partial) is None


@pytest.mark.parametrize(
    ("row", "bits", "message"),
    [
        (1, {"a": [1, 1, 1, 0], "b": [0]}, "row 1: 0.75 of a are correct, the matrix has 1"),
        (1, {"a": [1, 1, 1], "b": [0]}, "row 1 has 3 bits for the 4 test images of a"),
        (2, {"a": [0, 0, 0, 1]}, "row 2 has no bits for b"),
        (0, {"a": [1, 0, 1, 0], "b": [1], "z": [1]}, "row 0 has the task z"),
        (2, {}, "row 2 has no bits for a"),
    ],
)
def test_contradictions_are_found(row: int, bits: dict[str, list[int]], message: str) -> None:
    changed = {**BITS, row: {task: np.array(values, bool) for task, values in bits.items()}}
    found = disagreement(changed, MATRIX)
    assert found is not None
    assert message in found
