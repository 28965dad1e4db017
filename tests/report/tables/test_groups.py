"""Which runs share a table and which share a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.tables.frames import per_task_table, summary_table
from clbench.report.tables.groups import comparable_groups, method_runs

MakeResult = Callable[..., RunResult]
PARTIAL = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [None] * 3, [None] * 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"benchmark": "other"}, ["benchmark ", "mini", "other"]),
        ({"version": 2}, ["benchmark version ", "2", "1"]),
        ({"setting": Setting.TASK_HIDDEN}, ["setting ", "task-hidden", "task-given"]),
        ({"order": "II"}, ["task order II, not I"]),
        ({"tasks": ("x", "y", "z")}, ["other tasks"]),
        ({"model": "ViT-L-14"}, ["backbone ViT-L-14, not ViT-B-16"]),
        ({"fingerprint": "f2"}, ["backbone fingerprint f2, not f1"]),
        ({"options": {"shots": 5}}, ["benchmark options ", '{"shots": 5}', "{}"]),
        ({"counts": (101, 200, 50)}, ["other test images"]),
        ({"splits": {"arrows/test": "z"}}, ["other test images"]),
        ({"splits": {"arrows/train": "another draw"}}, ["other training images"]),
        ({"options": {"shots": 5, "shot_seed": 1}}, ["benchmark options ", '"shot_seed": 1']),
        ({"options": {"protocol": "published"}}, ["benchmark options ", '"protocol"']),
        ({"status": "quick"}, ["status quick, not complete"]),
        ({"status": "partial", "values": PARTIAL}, ["status partial, not complete"]),
    ],
)
def test_runs_that_may_not_be_compared_are_kept_apart(
    make_result: MakeResult, change: dict[str, Any], words: list[str]
) -> None:
    runs = [make_result(), make_result(**change)]
    first, second = comparable_groups(runs)
    assert first.reason == ""
    assert second.reason.startswith(f"Not to be compared with {first.name}: ")
    assert all(word in second.reason for word in words), second.reason
    assert second.reason.count(";") == 0, "only what differs is named"
    assert first.name != second.name
    for table in (summary_table, per_task_table, method_runs):
        with pytest.raises(ClbenchError, match="are not comparable"):
            table(runs)


def test_complete_runs_come_first(make_result: MakeResult) -> None:
    runs = [make_result(status="quick"), make_result(status="partial", values=PARTIAL)]
    groups = comparable_groups([*runs, make_result(benchmark="zzz")])
    assert [group.results[0].status for group in groups] == ["complete", "partial", "quick"]
    assert "[quick runs]" in groups[2].title


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"method": "lora"},
        {"params": {"rank": 1}},
        {"train": {"lr": 0.1}},
        {"training_seconds": 99.0},
        {"weights": "a copy of the same file"},
        {"method": "lora", "provenance": {"device": "cuda"}},
    ],
)
def test_runs_that_differ_otherwise_are_compared(
    make_result: MakeResult, change: dict[str, Any]
) -> None:
    change = {"method": "other", **change} if "params" not in change else change
    assert len(comparable_groups([make_result(), make_result(**change)])) == 1


def test_groups_do_not_depend_on_the_order_of_the_runs(
    make_result: MakeResult, study: list[RunResult]
) -> None:
    runs = [*study, make_result(fingerprint="f0"), make_result(benchmark="a", seed=3)]
    assert comparable_groups(runs) == comparable_groups(runs[::-1])


def test_seeds_of_one_method_share_a_row(make_result: MakeResult) -> None:
    rows = method_runs([make_result(seed=s) for s in (2, 0, 1)])
    assert [(row.label, [r.seed for r in row.results]) for row in rows] == [("nusa", [0, 1, 2])]


def test_rows_of_one_method_are_told_apart_by_what_differs(make_result: MakeResult) -> None:
    rows = method_runs(
        [
            make_result("lora", params={"rank": 8, "scale": 1.0, "on": True}, train={"lr": 1e-5}),
            make_result("lora", params={"rank": 8, "scale": 0.5, "on": True}, train={"lr": 3e-5}),
            make_result("lora", params={"rank": 8, "scale": 0.5, "on": False}, train={"lr": 3e-5}),
            make_result("nusa", params={"rank": 64}),
            make_result("nusa", params={"rank": 8}),
        ]
    )
    assert [row.label for row in rows] == [
        "lora (scale=0.5, on=false, train.lr=3e-05)",
        "lora (scale=0.5, on=true, train.lr=3e-05)",
        "lora (scale=1, on=true, train.lr=1e-05)",
        "nusa (rank=8)",
        "nusa (rank=64)",
    ]


def test_a_run_given_twice_counts_once(make_result: MakeResult) -> None:
    assert summary_table([make_result(), make_result()]).loc["nusa", "n"] == 1


def test_contradicting_runs_are_refused(make_result: MakeResult) -> None:
    lower = [[0.1, 0.1, 0.1]] * 4
    with pytest.raises(ClbenchError, match="two different runs of 'nusa' on 'mini' have seed 0"):
        comparable_groups([make_result(), make_result(values=lower)])


def test_no_results_is_a_user_error() -> None:
    with pytest.raises(ClbenchError, match="no results"):
        comparable_groups([])
