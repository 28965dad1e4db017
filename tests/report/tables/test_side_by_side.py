"""Orders of tasks and numbers of steps beside each other, and what is kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.tables.groups import comparable_groups
from clbench.report.tables.side_by_side import SideBySide, side_by_side, side_by_side_grid
from tests.made_up import INCREMENTAL, VALUES, shifted

MakeResult = Callable[..., RunResult]
TURNED = {"tasks": ("flags", "arrows", "clocks"), "counts": (50, 100, 200), "order": "II"}


def tables(results: Sequence[RunResult]) -> list[SideBySide]:
    return side_by_side(comparable_groups(results))


def test_orders_share_a_table(make_result: MakeResult) -> None:
    (table,) = tables(
        [
            make_result("lora", values=shifted(-0.1), options={"order": "I"}),
            make_result("nusa", stored=0, options={"order": "I"}),
            make_result("nusa", stored=0, options={"order": "II"}, **TURNED),
        ]
    )
    assert table.columns == ("Order I", "Order II")
    frame = table.table()
    assert frame.index.to_list() == ["zero-shot (before training)", "nusa", "lora"]
    assert frame.loc["nusa", ("Order II", "transfer")] == pytest.approx(0.475)
    assert frame.loc["lora"].isna()["Order II"].all()
    grid = side_by_side_grid(table)
    assert grid.header == ("Method", "n", *["Transfer", "Avg", "Last"] * 2)
    assert grid.above == ("", "", *["Order I"] * 3, *["Order II"] * 3)
    assert grid.titles[1:3] == ("n", "Order I Transfer")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in grid.rows}
    assert rows["nusa"] == ["1", *["47.5", "70.0", "80.0"] * 2]
    assert rows["lora"] == ["1", "37.5", "60.0", "70.0", "", "", ""]


def test_each_group_has_its_number_of_seeds_where_they_differ(make_result: MakeResult) -> None:
    orders = [make_result("nusa", seed, options={"order": "I"}) for seed in (0, 1)]
    (table,) = tables([*orders, make_result("nusa", options={"order": "II"}, **TURNED)])
    grid = side_by_side_grid(table)
    assert grid.titles[1:6:4] == ("Order I n", "Order II n")
    (row,) = (row for row in grid.rows if row[0].text == "nusa")
    assert [row[j].text for j in (1, 5)] == ["2", "1"]


def cil(make: MakeResult, steps: int, **changes: Any) -> RunResult:
    given = {
        "benchmark": f"cifar-{steps}step",
        "setting": Setting.CLASS_INCREMENTAL,
        "values": INCREMENTAL,
        "counts": (10, 30, 60),
        "options": {"steps": steps},
    }
    return make(**{**given, **changes})


def test_numbers_of_steps_share_a_table_in_their_order(make_result: MakeResult) -> None:
    (table,) = tables([cil(make_result, k) for k in (20, 50, 10)])
    assert table.columns == ("10 steps", "20 steps", "50 steps")
    grid = side_by_side_grid(table)
    assert [cell.text for cell in grid.rows[0]] == ["nusa", "1", *["85.0", "80.0"] * 3]
    assert "Transfer" not in grid.header


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"fingerprint": "f2"},
        {"splits": {"arrows/test": "x"}},
        {"options": {"order": "II", "shots": 5}},
        {"status": "quick"},
        {"benchmark": "other"},
        {"setting": Setting.TASK_HIDDEN},
        {"counts": (50, 100, 201)},
    ],
)
def test_orders_that_differ_otherwise_do_not(
    make_result: MakeResult, change: dict[str, Any]
) -> None:
    second = {"options": {"order": "II"}, **TURNED, **change}
    assert tables([make_result(values=VALUES), make_result(**second)]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"steps": 20, "protocol": "published"}},
        {"counts": (10, 30, 61)},
        {"version": 2},
        {"fingerprint": "f2"},
        {"benchmark": "other-20step"},
    ],
)
def test_steps_that_differ_otherwise_do_not(
    make_result: MakeResult, change: dict[str, Any]
) -> None:
    assert tables([cil(make_result, 10), cil(make_result, 20, **change)]) == []
    assert len(tables([cil(make_result, 10), cil(make_result, 20)])) == 1
