"""Whether a result and its record of single images belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import CorrectRow, row_file, write_row
from clbench.core.results.result import CostRecord, RunResult
from clbench.core.results.soundness import check_bits, counted_rows, require_sound, same_numbers
from tests.made_up import TASKS, VALUES, make_result, shifted

COUNTS = (100, 200, 50)


def answers(values: list[float]) -> CorrectRow:
    """As many right answers as give the accuracies of a row."""
    return {
        task: np.arange(count) < round(value * count)
        for task, value, count in zip(TASKS, values, COUNTS, strict=True)
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A result with its record."""
    make_result().save(tmp_path / "result.json")
    for learned, values in enumerate(VALUES):
        write_row(tmp_path, learned, answers(values))
    return tmp_path / "result.json"


def found(file: Path, schema: int | None = None) -> tuple[str, bool]:
    result = RunResult.load(file)
    if schema is not None:
        result = result.model_copy(update={"schema_version": schema})
    (finding,) = check_bits(file, result)
    return finding.text, finding.sound


def test_every_cell_is_the_mean_of_its_answers(run: Path) -> None:
    assert found(run) == ("1400 answers agree with every cell", True)
    assert require_sound(run) == RunResult.load(run)


def test_an_answer_that_was_changed_is_found(run: Path) -> None:
    row = answers(VALUES[2])
    row["clocks"][0] = False
    write_row(run.parent, 2, row)
    text, sound = found(run)
    assert text == "row 2: 0.895 of clocks are correct, the matrix has 0.9"
    assert not sound
    with pytest.raises(ClbenchError, match=r"result\.json: row 2: 0\.895"):
        require_sound(run)


@pytest.mark.parametrize(("schema", "sound"), [(1, True), (2, False), (3, False)])
def test_a_record_is_missed_where_the_schema_promises_it(
    run: Path, schema: int, sound: bool
) -> None:
    for learned in range(len(VALUES)):
        row_file(run.parent, learned).unlink()
    text, found_sound = found(run, schema)
    assert found_sound == sound
    assert text.startswith("older: " if sound else "the per-image record is missing: ")


def test_a_row_that_the_result_does_not_count_yet_may_be_there(run: Path) -> None:
    values = [*VALUES[:3], [None, None, None]]
    make_result(values=values, status="partial").save(run)
    assert sorted(counted_rows(run, RunResult.load(run))) == [0, 1, 2]
    assert found(run) == ("1050 answers agree with every cell", True)


def test_the_same_numbers_have_no_differences() -> None:
    assert same_numbers(make_result(), make_result(seed=3, training_seconds=1.0)) == []
    missing = [VALUES[0], *([None, None, None] for _ in range(3))]
    partial = make_result(values=missing, status="partial")
    assert same_numbers(partial, partial) == []


def test_every_difference_has_a_line() -> None:
    first = make_result()
    assert same_numbers(first, make_result(fingerprint="f2")) == ["the backbone's weights differ"]
    assert same_numbers(first, make_result(splits={"a": "b"})) == ["the images differ"]
    more = first.cost.model_dump() | {"steps": 301}
    other = first.model_copy(update={"cost": CostRecord(**more)})
    assert same_numbers(first, other) == ["the numbers of steps differ"]
    lines = same_numbers(first, make_result(values=shifted(-0.1)))
    assert lines == ["9 of 12 accuracies differ, by up to 10.00 percentage points"]
    tasks = make_result(tasks=("arrows", "clocks", "dials"))
    assert same_numbers(first, tasks) == ["tasks: arrows, clocks, flags and arrows, clocks, dials"]
