"""Matrix files: published ones give the published metrics, broken ones a clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results import metrics
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.task import Setting
from clbench.report.tables.matrix_csv import format_matrix_csv, read_matrix_csv, write_matrix_csv

FOLDER = Path(__file__).parents[2] / "data" / "published"
PUBLISHED = json.loads((FOLDER / "published.json").read_text())["matrices"]
ZSCL_SET = [name for name, entry in PUBLISHED.items() if "ZSCL" in entry["source"]]


def read(tmp_path: Path, text: str) -> AccuracyMatrix:
    path = tmp_path / "matrix.csv"
    path.write_text(text, encoding="utf-8")
    return read_matrix_csv(path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_matrices_give_the_published_metrics(name: str) -> None:
    matrix = read_matrix_csv(FOLDER / f"{name}.csv")
    assert len(matrix.tasks) == 11
    summary = matrix.summary()
    expected = PUBLISHED[name]["summary"]
    assert "last" in expected
    for key, value in expected.items():
        assert 100 * (summary[key] or 0) == pytest.approx(value, abs=0.05), key


@pytest.mark.parametrize("name", ZSCL_SET)
def test_published_matrices_give_the_published_numbers_per_data_set(name: str) -> None:
    matrix = read_matrix_csv(FOLDER / f"{name}.csv")
    per_task = matrix.per_task()
    expected = PUBLISHED[name]["per_task"]
    assert {key: len(values) for key, values in expected.items()} == {
        "transfer": 10,
        "average": 11,
        "last": 11,
    }
    for key, values in expected.items():
        for task, value in values.items():
            found = 100 * per_task[key][matrix.tasks.index(task)]
            assert found == pytest.approx(value, abs=0.05), (key, task)


def test_lebas_printed_transfer_is_not_that_of_its_printed_matrix() -> None:
    # Kept so that nobody takes the difference for an error of ours: Last agrees, these do not.
    summary = read_matrix_csv(FOLDER / "leba.csv").summary()
    printed = PUBLISHED["leba"]["disagrees"]
    assert printed["transfer"] - 100 * (summary["transfer"] or 0) == pytest.approx(0.34, abs=0.01)
    assert printed["average"] - 100 * (summary["average"] or 0) == pytest.approx(0.07, abs=0.01)


def test_the_two_readings_of_transfer_rank_published_methods_differently() -> None:
    lwf, icarl = (read_matrix_csv(FOLDER / f"{name}.csv").values for name in ("lwf", "icarl"))
    assert metrics.transfer(lwf) > metrics.transfer(icarl) + 0.06
    assert metrics.transfer_row_mean(lwf) < metrics.transfer_row_mean(icarl) - 0.02


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_matrices_survive_writing(tmp_path: Path, name: str) -> None:
    matrix = read_matrix_csv(FOLDER / f"{name}.csv")
    write_matrix_csv(matrix, tmp_path / "copy.csv")
    copy = read_matrix_csv(tmp_path / "copy.csv")
    np.testing.assert_allclose(copy.values, matrix.values, atol=1e-10)
    assert copy.tasks == matrix.tasks
    assert format_matrix_csv(copy) == format_matrix_csv(matrix)


def test_text_of_a_written_matrix(tmp_path: Path) -> None:
    matrix = AccuracyMatrix(
        ("a, first", 'b "2"'),
        [[1 / 3, 0.5], [0.9, np.nan], [np.nan, np.nan]],
        (10, 20),
        Setting.CLASS_INCREMENTAL,
    )
    text = format_matrix_csv(matrix)
    assert text == ('after,"a, first","b ""2"""\nzero-shot,0.3333333333,0.5\n"a, first",0.9,\n')
    (tmp_path / "m.csv").write_text(text)
    copy = read_matrix_csv(tmp_path / "m.csv", Setting.CLASS_INCREMENTAL)
    assert (copy.tasks, copy.counts, copy.setting) == (matrix.tasks, None, matrix.setting)
    assert copy.learned == 1


def test_pandas_reads_a_written_matrix_as_the_data_frame_of_the_matrix(tmp_path: Path) -> None:
    values = [[0.25, 0.5], [0.875, np.nan], [0.75, 1.0]]
    matrix = AccuracyMatrix(("a, first", "b"), values, (10, 20))
    write_matrix_csv(matrix, tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv", index_col="after")
    pd.testing.assert_frame_equal(frame, matrix.to_frame(), check_names=False)


def test_the_number_of_test_images_is_read_where_a_file_has_it(tmp_path: Path) -> None:
    matrix = read(tmp_path, "task,a,b\nimages,10,20\nzero-shot,20,40\n")
    assert matrix.counts == (10, 20)
    assert matrix.values[0].tolist() == [0.2, 0.4]


def test_percent_and_fractions_are_told_apart(tmp_path: Path) -> None:
    percent = read(tmp_path, "task,a,b\na,90,40\nb,1,95\n")
    fractions = read(tmp_path, "task,a,b\na,0.9,0.4\nb,0.01,0.95\n")
    assert percent == fractions
    assert percent.values[1:].tolist() == [[0.9, 0.4], [0.01, 0.95]]


def test_a_file_of_a_model_near_zero_is_in_percent_above_the_documented_limit(
    tmp_path: Path,
) -> None:
    assert read(tmp_path, "task,a,b\na,1.6,0.5\n").values[1].tolist() == [0.016, 0.005]
    assert read(tmp_path, "task,a,b\na,1.0,0.5\n").values[1].tolist() == [1.0, 0.5]


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    matrix = read(tmp_path, "\ufefftask,a,b\n\nzero-shot,,0.4\na , 0.9,\n,,\n")
    assert matrix.to_lists() == [[None, 0.4], [0.9, None], [None, None]]
    assert matrix.counts is None


def test_a_file_may_hold_only_zero_shot(tmp_path: Path) -> None:
    matrix = read(tmp_path, "task,a,b\nZero-Shot,20,40\n")
    assert matrix.summary()["zero_shot"] == pytest.approx(0.3)
    assert matrix.learned == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n , \n", "the file is empty"),
        ("task\n", "names no task"),
        ("task;a;b\na;1;2\n", "separated by commas"),
        ("task,a,b\n", "no row of accuracies"),
        ("task,a,b\nimages,5,5\n", "no row of accuracies"),
        ("task,a,b\na,90\n", "row 'a' has 2 cells, the header 3"),
        ("task,a,b\na,90,40,1\n", "row 'a' has 4 cells, the header 3"),
        ("task,a,b\na,90,good\n", "row 'a', column 'b': 'good' is not a number"),
        ("task,a,b\nzero-shot,1,x\n", "row 'zero-shot', column 'b': 'x' is not a number"),
        ("task,a,b\na,90,NaN\n", "'NaN' is not a number \\(leave missing cells empty\\)"),
        ("task,a,b\na,90,inf\n", "'inf' is not a number"),
        ("task,a,b\na,90,120\n", "column 'b': 120 is not between 0 and 100 .*as percent"),
        ("task,a,b\na,0.9,1.2\n", "column 'b': 1.2 is not between 0 and 1 .*as fraction"),
        ("task,a,b\na,90,-1\n", "row 'a', column 'b': -1 is not between"),
        ("task,a,a\na,90,40\n", "task 'a' has two columns"),
        ("task,a,\na,90,40\n", "column 3 has no name"),
        ("task,a,images\na,90,40\n", "a task cannot be called 'images'"),
        ("task,a,b\na,90,40\na,90,40\n", "task 'a' has two rows"),
        ("task,alpha,b\nalpa,90,40\n", "unknown row 'alpa': did you mean 'alpha'"),
        ("task,a,b\nb,90,40\na,90,40\n", "row 'b' stands where 'a' is due"),
        ("task,a,b\na,90,40\nzero-shot,2,4\n", "unknown row 'zero-shot'|stands where"),
        ("task,a,b\nimages,5,0\na,90,40\n", "row 'images', column 'b': '0' is no number of"),
        ("task,a,b\nimages,5,1.5\na,90,40\n", "column 'b': '1.5' is no number of images"),
    ],
)
def test_broken_files_are_one_line_that_names_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ClbenchError, match=message) as caught:
        read(tmp_path, text)
    assert "matrix.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="there is no matrix file"):
        read_matrix_csv(tmp_path / "none.csv")
    with pytest.raises(ClbenchError, match="cannot read"):
        read_matrix_csv(tmp_path)
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ClbenchError, match="not a CSV text file"):
        read_matrix_csv(tmp_path / "image.csv")


def test_missing_values_do_not_become_numbers(tmp_path: Path) -> None:
    matrix = read(tmp_path, "task,a,b\na,0.9,0.4\nb,,0.95\n")
    assert math.isnan(matrix.values[2, 0])
    assert matrix.summary()["last"] is None
