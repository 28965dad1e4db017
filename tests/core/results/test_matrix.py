"""The metrics against hand-computed cases and a slow implementation of their definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench.core.results import metrics
from clbench.core.results.matrix import SUMMARY_KEYS, AccuracyMatrix
from clbench.core.task import Setting
from clbench.report.paired.statistics import cell_weights

DATA = Path(__file__).parents[2] / "data"
CASES: dict[str, dict[str, Any]] = json.loads((DATA / "matrices.json").read_text())
PUBLISHED = json.loads((DATA / "published" / "published.json").read_text())


def matrix_of(case: dict[str, Any]) -> AccuracyMatrix:
    names = [f"task {j}" for j in range(len(case["counts"]))]
    return AccuracyMatrix.from_lists(
        names, case["values"], case["counts"], Setting(case["setting"])
    )


@pytest.mark.parametrize("name", CASES)
def test_summary_equals_the_hand_computed_one(name: str) -> None:
    summary = matrix_of(CASES[name]).summary()
    assert tuple(summary) == SUMMARY_KEYS
    assert summary == pytest.approx(CASES[name]["summary"], abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_per_task_numbers_equal_the_hand_computed_ones(name: str) -> None:
    per_task = matrix_of(CASES[name]).per_task()
    expected = CASES[name]["per_task"]
    assert per_task.keys() == expected.keys()
    for key, values in expected.items():
        numbers = [math.nan if value is None else value for value in values]
        np.testing.assert_allclose(per_task[key], numbers, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", PUBLISHED["class_incremental"])
def test_class_incremental_average_is_the_published_one(name: str) -> None:
    published = PUBLISHED["class_incremental"][name]
    steps = published["accuracy_after_step"]
    # The accuracy over all classes seen is published, not its parts: spread it evenly.
    values = [[None] * len(steps)] + [
        [accuracy / 100 if j <= t else None for j in range(len(steps))]
        for t, accuracy in enumerate(steps)
    ]
    names = [str(j) for j in range(len(steps))]
    matrix = AccuracyMatrix.from_lists(
        names, values, [1000] * len(steps), Setting.CLASS_INCREMENTAL
    )
    summary = matrix.summary()
    for key, expected in published["summary"].items():
        assert 100 * (summary[key] or 0) == pytest.approx(expected, abs=0.05)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def slow_metrics(a: list[list[float]], counts: list[int]) -> dict[str, float]:
    """The definitions, one loop per index, with rows t and columns j counted as in the papers."""
    last = len(a) - 1

    def at(t: int, j: int) -> float:
        return a[t][j - 1]

    def best(j: int) -> float:
        values = [at(t, j) for t in range(j, last)]
        return math.nan if any(map(math.isnan, values)) else max(values)

    def seen(t: int) -> float:
        images = sum(counts[:t])
        return sum(at(t, j) * counts[j - 1] for j in range(1, t + 1)) / images

    tasks = range(1, last + 1)
    return {
        "transfer": mean([mean([at(t, j) for t in range(1, j)]) for j in tasks if j > 1]),
        "transfer_row_mean": mean(
            [mean([at(t, j) for j in range(t + 1, last + 1)]) for t in range(1, last)]
        ),
        "average": mean([at(t, j) for t in tasks for j in tasks]),
        "last": mean([at(last, j) for j in tasks]),
        "learned": mean([at(t, t) for t in tasks]),
        "forgetting": mean([best(j) - at(last, j) for j in range(1, last)]),
        "backward_transfer": mean([at(last, j) - at(j, j) for j in range(1, last)]),
        "forward_transfer": mean([at(j - 1, j) - at(0, j) for j in tasks if j > 1]),
        "zero_shot": mean([at(0, j) for j in tasks]),
        "incremental": mean([seen(t) for t in tasks]),
    }


@pytest.mark.parametrize("missing", [0, 1, 3])
@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 11])
def test_metrics_follow_their_definitions(tasks: int, missing: int) -> None:
    rng = np.random.default_rng([tasks, missing])
    for _ in range(20):
        values = rng.random((tasks + 1, tasks))
        values.flat[rng.choice(values.size, min(missing, values.size), replace=False)] = math.nan
        counts = rng.integers(1, 1000, tasks).tolist()
        expected = slow_metrics(values.tolist(), counts)
        for key in SUMMARY_KEYS:
            found = getattr(metrics, key)(values)
            np.testing.assert_allclose(found, expected[key], atol=1e-12, err_msg=key)
        steps = metrics.incremental_accuracy(values, counts)
        np.testing.assert_allclose(steps.mean(), expected["incremental"], atol=1e-12)


def test_zero_shot_model_has_no_forgetting_and_only_its_own_accuracy() -> None:
    row = [0.243, 0.884, 0.682]
    summary = AccuracyMatrix(("a", "b", "c"), np.tile(row, (4, 1))).summary()
    assert summary["last"] == summary["average"] == pytest.approx(np.mean(row))
    assert summary["transfer"] == pytest.approx((0.884 + 0.682) / 2)
    assert summary["forgetting"] == summary["backward_transfer"] == 0
    assert summary["forward_transfer"] == 0


def test_class_incremental_ignores_cells_of_tasks_not_yet_learned() -> None:
    case = CASES["class-incremental, tasks of unequal size"]
    filled = [[0.123 if v is None else v for v in row] for row in case["values"]]
    assert matrix_of(case | {"values": filled}).summary() == pytest.approx(
        case["summary"], abs=1e-12
    )


def test_class_incremental_average_without_counts_is_unknown() -> None:
    case = CASES["class-incremental, tasks of unequal size"]
    matrix = AccuracyMatrix.from_lists("abc", case["values"], setting=Setting.CLASS_INCREMENTAL)
    summary = matrix.summary()
    assert summary["average"] is None
    assert summary["last"] is None
    assert summary["forgetting"] == pytest.approx(0.3)


def test_rows_are_filled_one_by_one() -> None:
    empty = AccuracyMatrix.empty(["a", "b"], [5, 6])
    first = empty.with_row(0, [0.1, 0.2]).with_row(1, [0.3, 0.4])
    full = first.with_row(2, [0.5, 0.6])
    assert [m.learned for m in (empty, first, full)] == [0, 1, 2]
    assert [m.complete for m in (empty, first, full)] == [False, False, True]
    assert set(empty.summary().values()) == {None}
    assert full.to_lists() == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    assert np.isnan(empty.values).all(), "with_row changed the matrix it was called on"


def test_class_incremental_progress_needs_only_tasks_seen() -> None:
    matrix = AccuracyMatrix.empty(["a", "b"], [5, 6], Setting.CLASS_INCREMENTAL)
    matrix = matrix.with_row(1, [0.5, math.nan])
    assert matrix.learned == 1
    assert matrix.with_row(2, [0.5, math.nan]).learned == 1
    assert matrix.with_row(2, [0.5, 0.5]).complete


@pytest.mark.parametrize("name", CASES)
def test_lists_survive_json(name: str) -> None:
    matrix = matrix_of(CASES[name])
    rows = json.loads(json.dumps(matrix.to_lists(), allow_nan=False))
    assert AccuracyMatrix.from_lists(matrix.tasks, rows, matrix.counts, matrix.setting) == matrix


def test_equality_sees_values_names_counts_and_setting() -> None:
    matrix = matrix_of(CASES["no zero-shot row"])
    rows = matrix.to_lists()
    assert matrix != matrix.with_row(2, [0.6, 0.8])
    assert matrix != AccuracyMatrix.from_lists(["a", "b"], rows, matrix.counts)
    assert matrix != AccuracyMatrix.from_lists(matrix.tasks, rows, [1, 2])
    assert matrix != AccuracyMatrix.from_lists(
        matrix.tasks, rows, matrix.counts, Setting.TASK_HIDDEN
    )


def test_values_are_a_read_only_copy() -> None:
    source = np.full((2, 1), 0.5)
    matrix = AccuracyMatrix(("a",), source)
    source[:] = 0.1
    assert matrix.values.tolist() == [[0.5], [0.5]]
    with pytest.raises(ValueError, match="read-only"):
        matrix.values[0, 0] = 0.2


@pytest.mark.parametrize(
    ("tasks", "values", "counts", "message"),
    [
        (("a",), [[0.5]], None, r"shape \(T \+ 1, T\)"),
        ((), np.zeros((1, 0)), None, r"shape \(T \+ 1, T\)"),
        (("a", "b"), [[0.5], [0.5]], None, "2 task names for 1 columns"),
        (("a", "a"), np.zeros((3, 2)), None, "unique"),
        (("a",), [[0.5], [70.0]], None, "fractions"),
        (("a",), [[0.5], [-0.1]], None, "fractions"),
        (("a",), [[0.5], [0.7]], (1, 2), "count"),
        (("a",), [[0.5], [0.7]], (0,), "count"),
    ],
)
def test_impossible_matrices_are_refused(
    tasks: tuple[str, ...], values: Any, counts: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AccuracyMatrix(tasks, values, counts)


def test_rows_of_the_wrong_length_are_refused() -> None:
    matrix = AccuracyMatrix.empty(["a", "b"])
    with pytest.raises(ValueError, match="2 accuracies"):
        matrix.with_row(1, 0.5)
    with pytest.raises(ValueError, match="rows 0 to 2"):
        matrix.with_row(3, [0.5, 0.5])
    with pytest.raises(ValueError, match="3 rows of 2 accuracies, got 2 rows of 1, 2"):
        AccuracyMatrix.from_lists(["a", "b"], [[0.1, 0.2], [0.3]])
    with pytest.raises(ValueError, match="3 counts for 1 tasks"):
        metrics.incremental_accuracy([[0.5], [0.5]], [1, 2, 3])


def test_the_data_frame_has_a_row_per_step_and_is_a_copy() -> None:
    matrix = AccuracyMatrix(("a", "b"), [[0.2, 0.3], [0.8, np.nan], [0.7, 0.9]])
    frame = matrix.to_frame()
    assert frame.index.to_list() == ["zero-shot", "a", "b"]
    assert frame.columns.to_list() == ["a", "b"]
    assert (frame.index.name, frame.columns.name) == ("after", "task")
    np.testing.assert_array_equal(frame.to_numpy(), matrix.values)
    frame.loc["a", "a"] = 0.0
    assert matrix.values[1, 0] == 0.8


def test_domain_incremental_runs_have_no_transfer_and_count_images() -> None:
    """Transfer is about classes not yet learned; all else is defined by the accuracies."""
    values = [[0.2, 0.3], [0.8, 0.4], [0.6, 0.9]]
    matrix = AccuracyMatrix.from_lists("ab", values, [100, 300], Setting.DOMAIN_INCREMENTAL)
    found = {key: value for key, value in matrix.summary().items() if value is not None}
    assert found == pytest.approx(
        {
            "average": (0.8 + (0.6 * 100 + 0.9 * 300) / 400) / 2,
            "last": (0.6 * 100 + 0.9 * 300) / 400,
            "learned": 0.85,
            "forgetting": 0.2,
            "backward_transfer": -0.2,
            "forward_transfer": 0.1,
            "zero_shot": 0.25,
        }
    )
    assert matrix.complete
    assert set(matrix.per_task()) == {"incremental", "last"}
    weights = cell_weights(Setting.DOMAIN_INCREMENTAL, [100, 300])
    for key in ("average", "last"):
        assert (weights[key] * matrix.values[1:]).sum() == pytest.approx(found[key])
    assert "transfer" not in weights
