"""`--compare all,METHOD`: the same numbers as comparisons of two, and ranks worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.report.paired.against import Against, against, rank_ranges
from clbench.report.paired.comparison import compare_methods
from tests.made_up import VALUES
from tests.report.answers import write_run
from tests.report.paired.test_comparison import LOWER, Files, MakeResult


@pytest.fixture
def three(make_result: MakeResult, tmp_path: Path) -> Files:
    """NuSA-CL is better than LoRA in the last row, and joint training better than both."""
    higher = [[round(min(1.0, value + 0.2), 2) for value in row] for row in VALUES]
    return [
        write_run(tmp_path / f"{name}{seed}", make_result(name, seed, values))
        for seed in (0, 1)
        for name, values in (("nusa", VALUES), ("lora", LOWER), ("joint", higher))
    ]


def table_of(runs: Files, method: str = "lora") -> Against:
    (found,) = against(runs, method)
    return found


def test_differences_are_those_of_two_methods(three: Files) -> None:
    table = table_of(three).table
    (pair,) = compare_methods(three, "nusa", "lora")
    for metric, title in (("average", "Avg"), ("last", "Last"), ("learned", "Learned")):
        row = pair.table.loc[title]
        for name in ("difference", "low", "high"):
            found = table.loc["nusa", f"{metric}_{name}"]
            assert found == pytest.approx(row[name], abs=0.004), (metric, name)
    assert table.loc["lora", ["last_difference", "last_low", "last_high"]].to_list() == [0, 0, 0]


def test_the_best_is_first_and_intervals_without_zero_are_marked(three: Files) -> None:
    found = table_of(three)
    grid = found.grid()
    rows = {row[0].text: row for row in grid.rows}
    assert list(found.table.index) == [row[0].text for row in grid.rows]
    assert found.table["average_value"].is_monotonic_decreasing
    last = grid.header.index("Δ Last")
    assert rows["nusa"][last].text.startswith("+6.7 [+")
    assert rows["nusa"][last].mark
    assert rows["lora"][last].text == "0.0 [0.0, 0.0]"
    assert not rows["lora"][last].mark


def test_ranks_by_hand() -> None:
    # The first is better than all; second and third change places; the fourth is worse than all.
    totals = np.array([[4.0, 2.0, 2.1, 1.0], [4.0, 2.1, 2.0, 1.1]])
    best, worst = rank_ranges(totals, np.ones(4, dtype=bool))
    assert best.tolist() == [1, 2, 2, 4]
    assert worst.tolist() == [1, 3, 3, 4]
    best, worst = rank_ranges(totals, np.array([False, True, True, True]))
    assert np.isnan([best[0], worst[0]]).all()
    assert best[1:].tolist() == [1, 1, 3]
    assert worst[1:].tolist() == [2, 2, 3]


def test_other_seeds_are_left_out_and_named(three: Files, make_result: MakeResult) -> None:
    folder = three[0][0].parents[1]
    runs = [*three, write_run(folder / "milora0", make_result("milora", 0))]
    found = table_of(runs)
    assert found.left_out == ("milora",)
    assert found.notes[-1].endswith("milora.")
    assert "milora" not in found.table.index


def test_a_method_that_is_unknown_or_alone_is_told(three: Files) -> None:
    with pytest.raises(ClbenchError, match="did you mean 'lora'"):
        against(three, "loar")
    with pytest.raises(ClbenchError, match="no other method has runs"):
        against([run for run in three if run[1].method.name == "lora"], "lora")


def test_from_the_command_line_with_others(three: Files, tmp_path: Path) -> None:
    folder, out = str(three[0][0].parents[1]), tmp_path / "tables"
    options = ["--compare", "all,lora", "--compare", "nusa,lora", "--out", str(out), "--html"]
    done = CliRunner().invoke(app, ["report", folder, *options])
    assert done.exit_code == 0, done.stderr
    assert "Differences to LoRA" in done.stdout
    assert {"against-lora.md", "compare-nusa-lora.md"} <= {path.name for path in out.iterdir()}
    assert "Differences to LoRA" in (out / "index.html").read_text()
    refused = CliRunner().invoke(app, ["report", folder, "--compare", "nusa"])
    assert refused.exit_code == 2
    assert "expected two methods, e.g. nusa,lora, or all,finetune" in refused.stderr
