"""Which test images were classified correctly, one bit per image: what paired statistics need.

A record holds one row of the accuracy matrix: a line of JSON, then the packed bits of the tested
tasks one after another, each padded to whole bytes (first image in the highest bit).

    {"format": "clbench-correct/1", "learned": 1, "tasks": [["digits", 400, 233]], "sha256": "..."}

The numbers of a task are its test images and how many of them were correct; the hash is that of
the bits. Records may follow one another in one file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import FILE_NAME as RESULT_FILE
from clbench.core.results.result import Count

FORMAT = "clbench-correct/1"
FOLDER = "correct"
"""Folder of a run directory with one file per row."""
SUFFIX = ".bits"

Bits = NDArray[np.bool_]
CorrectRow = dict[str, Bits]
"""Task name to ``(N,)`` bool, in the order of the test images."""


def encode_row(learned: int, row: Mapping[str, ArrayLike]) -> bytes:
    """The record of the row measured after `learned` tasks.

    >>> encode_row(0, {"a": [True, False, True]})[-1:] == bytes([0b10100000])
    True
    """
    bits = {task: np.asarray(values, dtype=bool) for task, values in row.items()}
    payload = b"".join(np.packbits(values).tobytes() for values in bits.values())
    header = {
        "format": FORMAT,
        "learned": learned,
        "tasks": [[task, len(values), int(values.sum())] for task, values in bits.items()],
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + payload


def decode_rows(content: bytes) -> dict[int, CorrectRow]:
    """All records of a file: number of tasks learned to row.

    Raises:
        ValueError: the content is cut off, changed or of another format.

    >>> decode_rows(encode_row(2, {"a": [True, False]}))
    {2: {'a': array([ True, False])}}
    """
    rows: dict[int, CorrectRow] = {}
    while content:
        line, _, content = content.partition(b"\n")
        header = _header(line)
        sizes = [(images + 7) // 8 for _, images, _ in header.tasks]
        payload, content = content[: sum(sizes)], content[sum(sizes) :]
        if len(payload) < sum(sizes) or hashlib.sha256(payload).hexdigest() != header.sha256:
            raise ValueError("the bits do not have the hash that the header states")
        row: CorrectRow = {}
        for (task, images, correct), size in zip(header.tasks, sizes, strict=True):
            packed, payload = payload[:size], payload[size:]
            row[task] = np.unpackbits(np.frombuffer(packed, np.uint8), count=images).astype(bool)
            if row[task].sum() != correct:
                raise ValueError(f"{task}: not the number of correct images that is stated")
        rows[header.learned] = row
    return rows


def row_file(folder: Path, learned: int) -> Path:
    """Where a run directory keeps the row measured after `learned` tasks."""
    return folder / FOLDER / f"row-{learned:03d}{SUFFIX}"


def write_row(folder: Path, learned: int, row: Mapping[str, ArrayLike]) -> None:
    """Keep a row in a run directory, in place of an earlier one.

    Raises:
        ClbenchError: the file cannot be written.
    """
    write_atomic(row_file(folder, learned), encode_row(learned, row))


def drop_rows(folder: Path, learned: int) -> None:
    """Forget the rows after the first `learned` tasks: they will be measured again."""
    for path in (folder / FOLDER).glob(f"row-*{SUFFIX}"):
        if path > row_file(folder, learned):
            path.unlink()


def read_rows(result_file: Path) -> dict[int, CorrectRow]:
    """The rows that belong to a result file: in its run directory, or collected beside it.

    Returns:
        Number of tasks learned to row; empty where the run kept none.

    Raises:
        ClbenchError: a file is damaged.
    """
    single = result_file.with_suffix(SUFFIX)
    if single.exists():
        files = [single]
    elif result_file.name == RESULT_FILE:
        files = sorted((result_file.parent / FOLDER).glob(f"row-*{SUFFIX}"))
    else:
        files = []
    rows: dict[int, CorrectRow] = {}
    for path in files:
        try:
            rows |= decode_rows(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ClbenchError(f"{path} is damaged: {error}") from error
    return rows


def disagreement(rows: Mapping[int, CorrectRow], matrix: AccuracyMatrix) -> str | None:
    """Where the bits and an accuracy matrix contradict each other; None if nowhere.

    Every cell of the matrix must be the mean of its bits, exactly, and every row with bits must
    be in the matrix.
    """
    counts = matrix.counts or (0,) * len(matrix.tasks)
    for t, values in enumerate(matrix.values):
        row = rows.get(t, {})
        if unknown := set(row) - set(matrix.tasks):
            return f"row {t} has the task {min(unknown)}, which the matrix lacks"
        for task, value, count in zip(matrix.tasks, values, counts, strict=True):
            bits = row.get(task)
            if bits is None and not np.isnan(value):
                return f"row {t} has no bits for {task}"
            if bits is not None and len(bits) != count:
                return f"row {t} has {len(bits)} bits for the {count} test images of {task}"
            found = math.nan if bits is None else bits.mean()
            if bits is not None and found != value:
                return f"row {t}: {found:.6g} of {task} are correct, the matrix has {value:.6g}"
    return None


class _Header(BaseModel):
    """The line before the bits of a row."""

    model_config = ConfigDict(strict=True)

    format: Literal["clbench-correct/1"]
    learned: Annotated[int, Field(ge=0)]
    tasks: list[tuple[str, Count, Count]]
    sha256: str


def _header(line: bytes) -> _Header:
    try:
        header = _Header.model_validate_json(line)
    except ValidationError as error:
        raise ValueError(f"no header, or not of the format {FORMAT}") from error
    if any(correct > images for _, images, correct in header.tasks):
        raise ValueError(f"not of the format {FORMAT}: more images are correct than there are")
    return header
