"""Which row is the zero-shot reference, and which methods count as storage-free."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clbench.core.results.result import RunResult
from clbench.report.formats.cells import BEST
from clbench.report.tables.frames import (
    METHOD,
    REFERENCE,
    REFERENCE_LABEL,
    UPPER_BOUND,
    summary_table,
)
from clbench.report.tables.grid import summary_grid
from clbench.report.tables.groups import UPPER, comparable_groups

MakeResult = Callable[..., RunResult]
CONSTANT = [[0.2, 0.3, 0.4]] * 4
NOTHING = {"trainable": 0, "added": 0, "stored": 0}


def test_a_run_that_trained_nothing_is_the_reference(make_result: MakeResult) -> None:
    table = summary_table([make_result("frozen", values=CONSTANT, **NOTHING), make_result("nusa")])
    assert table["kind"].to_dict() == {"frozen": REFERENCE, "nusa": METHOD}


@pytest.mark.parametrize("cost", ["trainable", "added", "stored"])
def test_a_method_whose_answers_happen_to_stay_is_none(make_result: MakeResult, cost: str) -> None:
    """A learning rate of zero, or an update too small to turn an answer, is still training."""
    still = make_result("still", values=CONSTANT, **{**NOTHING, cost: 10})
    table = summary_table([still, make_result("nusa")])
    assert table.index[0] == REFERENCE_LABEL
    assert table.loc["still", "kind"] == METHOD


def test_nor_is_one_whose_answers_change_without_training(make_result: MakeResult) -> None:
    table = summary_table([make_result("head", **NOTHING)])
    assert table["kind"].to_dict() == {REFERENCE_LABEL: REFERENCE, "head": METHOD}


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, True),
        ({"stored": 1}, False),
        ({"external": 1}, False),
        ({"needs": ("replay",)}, False),
        ({"added": 1}, True),  # the tested model may grow: its bytes are stored, if it keeps them
    ],
    ids=["nothing", "stored", "external", "needs", "added"],
)
def test_storage_free_methods_keep_nothing_and_use_nothing_else(
    make_result: MakeResult, changes: dict[str, object], free: bool
) -> None:
    table = summary_table([make_result("nusa", **{"stored": 0, **changes})])
    assert table.loc["nusa", "storage_free"] == free


def test_upper_bounds_are_marked_and_take_no_part_in_the_ranking(make_result: MakeResult) -> None:
    best = [[0.2, 0.3, 0.4], *[[0.9, 0.95, 0.99]] * 3]
    worse = [[0.2, 0.3, 0.4], *[[0.1, 0.1, 0.1]] * 3]
    results = [
        make_result("joint", values=best, needs=("all-data",)),
        make_result("nusa"),
        make_result("lora", values=worse),
    ]
    table = summary_table(results)
    label = f"joint {UPPER}"
    assert table["kind"].to_dict() == {
        REFERENCE_LABEL: REFERENCE,
        label: UPPER_BOUND,
        "nusa": METHOD,
        "lora": METHOD,
    }
    (group,) = comparable_groups(results)
    assert any(note.startswith("An upper bound") for note in group.notes)
    grid = summary_grid(table, group.setting)
    marked = {row[0].text for row in grid.rows if any(cell.mark == BEST for cell in row)}
    assert "nusa" in marked
    assert label not in marked
