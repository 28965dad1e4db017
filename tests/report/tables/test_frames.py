"""The numbers of the tables, and which of them are marked as best."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import BEST, SECOND, Grid
from clbench.report.tables.frames import (
    REFERENCE_LABEL,
    per_task_table,
    per_task_values,
    summary_table,
)
from clbench.report.tables.grid import per_task_grid, percent, summary_grid

MakeResult = Callable[..., RunResult]
HIGH = [[0.2, 0.3, 0.4], [0.9, 0.5, 0.6], [0.8, 1.0, 0.7], [0.7, 0.9, 1.0]]
INCREMENTAL = [[None, None, None], [1.0, None, None], [0.6, 0.8, None], [0.5, 0.7, 0.9]]
PARTIAL = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [None] * 3, [None] * 3]


def column(grid: Grid, title: str) -> list[str]:
    place = grid.header.index(title)
    wrap = {BEST: "*{}*", SECOND: "_{}_"}
    return [wrap.get(row[place].mark, "{}").format(row[place].text) for row in grid.rows]


def test_mean_and_sample_deviation_over_seeds(make_result: MakeResult) -> None:
    table = summary_table([make_result(seed=0), make_result(seed=1, values=HIGH)])
    row = table.loc["nusa"]
    assert row["n"] == 2
    # Last is 0.8 and 2.6 / 3; their sample deviation is the difference over the root of two.
    assert row["last"] == pytest.approx((0.8 + 2.6 / 3) / 2)
    assert row["last_std"] == pytest.approx((2.6 / 3 - 0.8) / math.sqrt(2))
    assert row["transfer"] == pytest.approx((0.475 + 0.575) / 2)
    grid = summary_grid(table, Setting.TASK_GIVEN)
    assert column(grid, "Last") == ["30.0 ± 0.0", "83.3 ± 4.7"]
    assert column(grid, "n") == ["2", "2"]


def test_one_seed_has_no_spread(make_result: MakeResult) -> None:
    table = summary_table([make_result()])
    assert math.isnan(table.loc["nusa", "last_std"])
    assert column(summary_grid(table, Setting.TASK_GIVEN), "Last") == ["30.0", "80.0"]


def test_zero_shot_line_shows_what_the_model_knew_before(make_result: MakeResult) -> None:
    table = summary_table([make_result(), make_result("lora", values=HIGH)])
    assert table.index.to_list() == [REFERENCE_LABEL, "lora", "nusa"]
    reference = table.loc[REFERENCE_LABEL]
    assert reference["transfer"] == pytest.approx(0.35)  # the first task has no transfer
    assert reference["average"] == reference["last"] == pytest.approx(0.3)
    assert table["transfer_delta"].to_list() == pytest.approx([0.0, 0.575 - 0.35, 0.475 - 0.35])
    assert table["last_delta"].to_list() == pytest.approx([0.0, 2.6 / 3 - 0.3, 0.5])
    grid = summary_grid(table, Setting.TASK_GIVEN)
    assert column(grid, "Δ Last") == ["0.0", "+56.7", "+50.0"]
    assert grid.rules == {1}


def test_a_method_that_trains_nothing_is_the_reference(make_result: MakeResult) -> None:
    frozen = make_result("zero-shot", values=[[0.9, 0.9, 0.9]] * 4, trainable=0, stored=0)
    table = summary_table([frozen, make_result("aaa"), make_result("lora", values=HIGH)])
    assert table.index.to_list() == ["zero-shot", "aaa", "lora"]
    last = column(summary_grid(table, Setting.TASK_GIVEN), "Last")
    assert last == ["90.0", "_80.0_", "*86.7*"], "the reference is not ranked"


def test_a_method_that_trains_in_vain_is_ranked(make_result: MakeResult) -> None:
    idle = make_result("idle", values=[[0.9, 0.9, 0.9]] * 4)
    table = summary_table([idle, make_result("lora", values=HIGH)])
    assert table.loc["idle", "kind"] == "method"
    assert column(summary_grid(table, Setting.TASK_GIVEN), "Last")[-2:] == ["*90.0*", "_86.7_"]


def test_without_zero_shot_row_there_is_no_reference(make_result: MakeResult) -> None:
    values = [[None, None, None], *HIGH[1:]]
    table = summary_table([make_result(values=values)])
    assert table.index.to_list() == ["nusa"]
    assert table[["transfer_delta", "zero_shot"]].isna().all(axis=None)
    assert "Δ Last" not in summary_grid(table, Setting.TASK_GIVEN).header


def test_best_and_second_best_follow_the_direction_of_the_metric(
    make_result: MakeResult,
) -> None:
    forgetful = [[0.2, 0.3, 0.4], [0.9, 0.4, 0.5], [0.7, 0.9, 0.6], [0.3, 0.7, 1.0]]
    table = summary_table(
        [
            make_result("a"),
            make_result("b", values=HIGH),
            make_result("c", values=forgetful),
        ]
    )
    grid = summary_grid(table.loc[["a", "b", "c"]], Setting.TASK_GIVEN)
    assert column(grid, "Last") == ["_80.0_", "*86.7*", "66.7"]
    assert column(grid, "Forgetting") == ["*15.0*", "*15.0*", "_40.0_"]
    assert column(grid, "BWT") == ["*-15.0*", "*-15.0*", "_-40.0_"]
    assert column(grid, "Trainable") == ["1.2 M"] * 3, "costs are not ranked"


def test_values_that_print_alike_are_marked_alike(make_result: MakeResult) -> None:
    almost = [*HIGH[:3], [0.7, 0.9, 0.9999]]
    table = summary_table([make_result("a", values=HIGH), make_result("b", values=almost)])
    assert column(summary_grid(table, Setting.TASK_GIVEN), "Last") == ["30.0", "*86.7*", "*86.7*"]


def test_a_lone_method_is_not_best(make_result: MakeResult) -> None:
    grid = summary_grid(summary_table([make_result()]), Setting.TASK_GIVEN)
    assert not any(cell.mark for row in grid.rows for cell in row)


def test_needs_and_costs_are_shown(make_result: MakeResult) -> None:
    table = summary_table(
        [
            make_result(
                needs=("replay", "reference-images"),
                external=2_500_000_000,
                training_seconds=5400,
                peak_memory_bytes=123_456_789,
            )
        ]
    )
    grid = summary_grid(table.loc[["nusa"]], Setting.TASK_GIVEN)
    assert column(grid, "Needs") == ["reference-images replay"]
    assert column(grid, "External") == ["2.5 GB"]
    assert column(grid, "Stored") == ["5.0 kB"]
    assert column(grid, "Training") == ["1.5 h"]
    assert column(grid, "Peak memory") == ["123.5 MB"]


def test_columns_of_which_nothing_is_known_are_left_out(make_result: MakeResult) -> None:
    header = summary_grid(summary_table([make_result()]), Setting.TASK_GIVEN).header
    assert "Peak memory" not in header
    assert "Needs" not in header


def test_class_incremental_tables_have_no_transfer(make_result: MakeResult) -> None:
    setting = Setting.CLASS_INCREMENTAL
    results = [make_result(values=INCREMENTAL, setting=setting, counts=(10, 30, 60))]
    table = summary_table(results)
    assert table.index.to_list() == ["nusa"]
    grid = summary_grid(table, setting)
    assert grid.header[:6] == ("Method", "n", "Avg", "Last", "Learned", "Forgetting")
    assert [cell.text for cell in grid.rows[0]][2:6] == ["85.0", "80.0", "90.0", "30.0"]
    per_task = per_task_grid(per_task_table(results))
    assert [[cell.text for cell in row] for row in per_task.rows] == [
        ["After step", "nusa", "1", "100.0", "75.0", "80.0", "85.0"],
        ["Last", "nusa", "1", "50.0", "70.0", "90.0", "80.0"],
    ]


def test_unfinished_runs_show_only_what_is_known(make_result: MakeResult) -> None:
    results = [make_result(values=PARTIAL, status="partial")]
    grid = summary_grid(summary_table(results), Setting.TASK_GIVEN)
    assert column(grid, "Last") == ["30.0", ""]
    rows = per_task_grid(per_task_table(results)).rows
    assert [cell.text for cell in rows[1]] == ["", "nusa", "1", "", "40.0", "", ""]


def test_a_mean_over_seeds_needs_every_seed(make_result: MakeResult) -> None:
    gap = [[0.2, None, 0.4], *HIGH[1:]]
    table = summary_table([make_result(seed=0), make_result(seed=1, values=gap)])
    assert math.isnan(table.loc["nusa", "zero_shot"])
    assert math.isnan(table.loc["nusa", "zero_shot_std"])


def test_per_task_blocks(make_result: MakeResult) -> None:
    results = [make_result(), make_result("lora", values=HIGH), make_result("lora", 1)]
    table = per_task_table(results)
    assert table.columns.to_list() == ["kind", "n", "arrows", "clocks", "flags", "mean"]
    assert table.index.to_list() == [
        (metric, method)
        for metric in ("transfer", "average", "last")
        for method in (REFERENCE_LABEL, "lora", "nusa")
    ]
    np.testing.assert_allclose(
        table.loc[("transfer", "nusa")].to_numpy()[1:].astype(float),
        [1, math.nan, 0.4, 0.55, 0.475],
    )
    np.testing.assert_allclose(
        table.loc[("last", "lora")].to_numpy()[1:].astype(float),
        [2, 0.65, 0.85, 1.0, (0.8 + 2.6 / 3) / 2],
    )
    grid = per_task_grid(table)
    assert grid.rules == {3, 6}
    assert column(grid, "clocks")[:3] == ["30.0", "*45.0*", "_40.0_"]
    blocks = ["Transfer", "", "", "Avg", "", "", "Last", "", ""]
    assert [row[0].text for row in grid.rows] == blocks


def test_long_form_has_spread_and_sample_counts(make_result: MakeResult) -> None:
    table = per_task_values([make_result(), make_result(seed=1, values=HIGH)])
    row = table.query("metric == 'last' and method == 'nusa' and task == 'clocks'").iloc[0]
    assert (row["images"], row["n"]) == (200, 2)
    assert row["mean"] == pytest.approx(0.85)
    assert row["std"] == pytest.approx(0.1 / math.sqrt(2))


def test_task_names_may_be_those_of_other_columns(make_result: MakeResult) -> None:
    results = [make_result(tasks=("task", "method", "metric"))]
    table = per_task_table(results)
    assert table.loc[("last", "nusa")].to_list()[1:] == pytest.approx([1, 0.6, 0.8, 1.0, 0.8])


@pytest.mark.parametrize(
    ("fraction", "text"), [(1.0, "100.0"), (0.0, "0.0"), (-0.00001, "0.0"), (0.12349, "12.3")]
)
def test_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text
