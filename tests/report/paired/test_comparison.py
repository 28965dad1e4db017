"""`--compare`: numbers worked out by hand, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import binomtest

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import row_file
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.paired.comparison import compare_methods
from clbench.report.write import write_report
from tests.made_up import INCREMENTAL, VALUES
from tests.report.answers import write_run

MakeResult = Callable[..., RunResult]
Files = list[tuple[Path, RunResult]]
# As VALUES but for the last row: 10 of the 100, 20 of the 200 and no images of the tasks less.
LOWER = [*VALUES[:3], [0.5, 0.7, 1.0]]


METRICS = ["Transfer", "Avg", "Last", "Learned", "BWT"]


@pytest.fixture
def two(make_result: MakeResult, tmp_path: Path) -> Files:
    return [
        write_run(tmp_path / "a", make_result("nusa")),
        write_run(tmp_path / "b", make_result("lora", values=LOWER)),
    ]


def test_one_seed_by_hand(two: Files) -> None:
    (comparison,) = compare_methods(two, "nusa", "lora")
    table = comparison.table
    assert table.index.to_list() == [*METRICS, "arrows", "clocks", "flags"]
    assert table["difference"].to_list() == pytest.approx(
        [0.0, 0.2 / 9, 0.2 / 3, 0.0, 0.1, 0.1, 0.1, 0.0], abs=1e-12
    )
    assert table["images"].to_list() == [250, 350, 350, 350, 300, 100, 200, 50]
    assert table["std"].isna().all(), "one seed has no spread"
    # All that differ are in favour: McNemar with 10 to 0 and 20 to 0.
    expected = [binomtest(10, 10).pvalue, binomtest(20, 20).pvalue, 1.0]
    assert table["p"].to_list()[5:] == pytest.approx(expected)
    assert table["p_holm"].to_list()[5:] == pytest.approx([2 * expected[0], 3 * expected[1], 1.0])
    assert table.loc["arrows", "low"] == pytest.approx(0.04, abs=0.015)
    assert table.loc["arrows", "high"] == pytest.approx(0.16, abs=0.015)
    assert table.loc["flags", ["low", "high"]].to_list() == [0.0, 0.0]
    assert table.loc["Last", "low"] < 0.2 / 3 < table.loc["Last", "high"]


def test_printed_with_its_number_of_seeds_and_tests(two: Files) -> None:
    (comparison,) = compare_methods(two, "nusa", "lora")
    assert "n = 1 (seed 0)" in comparison.title
    assert "the 3 tests of this table" in " ".join(comparison.notes)
    grid = comparison.grid()
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in grid.rows}
    assert grid.rules == {5}
    assert rows["Last"][:5] == ["1", "350", "80.0", "73.3", "+6.7"]
    assert rows["Last"][6:] == ["", ""], "only tasks are tested"
    assert rows["flags"] == ["1", "50", "100.0", "100.0", "0.0", "[0.0, 0.0]", "1", "1"]
    swapped = compare_methods(two, "lora", "nusa")[0].grid()
    assert [row[5].text for row in swapped.rows][2] == "-6.7"


def test_several_seeds_are_paired(make_result: MakeResult, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{name}{seed}", make_result(name, seed, values), seed == 0)
        for name, seed, values in [
            ("nusa", 0, VALUES),
            ("nusa", 1, VALUES),
            ("lora", 1, VALUES),
            ("lora", 0, LOWER),
        ]
    ]
    (comparison,) = compare_methods(runs, "nusa", "lora")
    row = comparison.table.loc["clocks"]
    assert comparison.seeds == (0, 1)
    assert row["difference"] == pytest.approx(0.05)
    assert row["std"] == pytest.approx(0.1 / math.sqrt(2))
    # 20 images in favour in one seed of two: their signs are flipped once per image.
    assert row["p"] == pytest.approx(2 / 2**20)
    assert "± 7.1" in comparison.grid().rows[6][5].text


def test_steps_of_new_classes_weigh_by_images(make_result: MakeResult, tmp_path: Path) -> None:
    lower = [*INCREMENTAL[:3], [0.5, 0.7, 0.5]]
    runs = [
        write_run(
            tmp_path / name, make_result(name, values=values, setting=Setting.CLASS_INCREMENTAL)
        )
        for name, values in (("nusa", INCREMENTAL), ("lora", lower))
    ]
    (comparison,) = compare_methods(runs, "nusa", "lora")
    table = comparison.table
    assert table.index.to_list()[:4] == ["Avg", "Last", "Learned", "BWT"]
    assert table.loc["Last", "difference"] == pytest.approx(0.4 * 50 / 350)
    assert table.loc["Avg", "difference"] == pytest.approx(0.4 * 50 / 350 / 3)
    assert table.loc["Avg", "low"] < 0.4 * 50 / 350 / 3 < table.loc["Avg", "high"]


def test_written_in_all_formats(two: Files, tmp_path: Path) -> None:
    comparisons = compare_methods(two, "nusa", "lora")
    results = [result for _, result in two]
    write_report(results, tmp_path / "out", comparisons=comparisons)
    names = {path.name for path in (tmp_path / "out").glob("compare-*")}
    assert names == {f"compare-nusa-lora.{kind}" for kind in ("md", "csv", "tex", "html")}
    again = compare_methods(two[::-1], "nusa", "lora")
    write_report(results, tmp_path / "again", comparisons=again)
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "nusa"}, "unknown method among these runs 'lora'"),
        ({"seed": 1}, "nusa has the seeds 0, lora 1 .*: run the missing ones"),
        ({"version": 2}, "no comparable runs: mini v1.* is not mini v2"),
        ({"splits": {"arrows/test": "x"}}, "no comparable runs"),
        ({"counts": (100, 200, 60)}, "no comparable runs"),
        ({"status": "partial"}, "no comparable runs"),
    ],
)
def test_what_does_not_match_is_refused(
    make_result: MakeResult, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    other = make_result(**{"method": "lora", **change})
    runs = [write_run(tmp_path / "a", make_result()), write_run(tmp_path / "b", other)]
    with pytest.raises(ClbenchError, match=message):
        compare_methods(runs, "nusa", "lora")


def test_several_settings_are_refused(make_result: MakeResult, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", make_result(params={"rank": 8})),
        write_run(tmp_path / "b", make_result(params={"rank": 64})),
        write_run(tmp_path / "c", make_result("lora")),
    ]
    with pytest.raises(ClbenchError, match=r"nusa has 2 settings .*rank=8.*rank=64"):
        compare_methods(runs, "nusa", "lora")
    with pytest.raises(ClbenchError, match="two different methods"):
        compare_methods(runs, "nusa", "nusa")


def test_unfinished_runs_are_refused(make_result: MakeResult, tmp_path: Path) -> None:
    values = [VALUES[0], VALUES[1], [None] * 3, [None] * 3]
    runs = [
        write_run(tmp_path / name, make_result(name, values=values, status="partial"))
        for name in ("nusa", "lora")
    ]
    with pytest.raises(ClbenchError, match="nusa, seed 0 is not finished"):
        compare_methods(runs, "nusa", "lora")


def test_missing_and_foreign_bits_are_refused(two: Files) -> None:
    path = row_file(two[1][0].parent, 2)
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(ClbenchError, match="row 2 has no bits for arrows"):
        compare_methods(two, "nusa", "lora")
    path.write_bytes(kept.replace(b'"learned": 2', b'"learned": 3'))
    with pytest.raises(ClbenchError, match="row 2 has no bits"):
        compare_methods(two, "nusa", "lora")
    for row in two[1][0].parent.glob("correct/*"):
        row.unlink()
    with pytest.raises(ClbenchError, match="lora, seed 0 has no per-image correctness beside"):
        compare_methods(two, "nusa", "lora")


def test_a_copy_without_bits_does_not_hide_them(two: Files, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    two[0][1].save(copy)
    assert compare_methods([(copy, two[0][1]), *two], "nusa", "lora")
