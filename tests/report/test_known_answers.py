"""Result files with known answers: every table is right, or refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.report.console import render_console
from clbench.report.write import write_report
from clbench.tidy import find_results
from tests.made_up import VALUES, shifted
from tests.report.formats import Rows, read_markdown, without_sections

MakeResult = Callable[..., RunResult]
MISSING = [VALUES[0], [0.8, 0.4, None], VALUES[2], VALUES[3]]
PARTIAL = [VALUES[0], VALUES[1], [None] * 3, [None] * 3]


def report(folder: Path, *results: RunResult) -> Path:
    """Write results as files, read them back and report them."""
    for i, result in enumerate(results):
        result.save(folder / "runs" / f"run{i}" / "result.json")
    write_report(find_results([folder / "runs"]), folder / "out")
    return folder / "out"


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """The summary as printed: method to column to text, marks included."""
    text = (folder / "summary.md").read_text()
    header, *body = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in body}


def test_ties_are_all_best_and_the_next_is_second(make_result: MakeResult, tmp_path: Path) -> None:
    found = rows(
        report(
            tmp_path,
            make_result("a"),
            make_result("b"),
            make_result("c", values=shifted(-0.1)),
            make_result("d", values=shifted(-0.1)),
            make_result("e", values=shifted(-0.2)),
        )
    )
    last = [found[method]["Last"] for method in "abcde"]
    assert last == ["**80.0**", "**80.0**", "<u>70.0</u>", "<u>70.0</u>", "60.0"]


def test_ties_are_decided_by_what_is_printed(make_result: MakeResult, tmp_path: Path) -> None:
    nearly = [*VALUES[:3], [0.6, 0.8, 0.9999]]  # Last 79.997, printed 80.0
    found = rows(report(tmp_path, make_result("a"), make_result("b", values=nearly)))
    assert (found["a"]["Last"], found["b"]["Last"]) == ("**80.0**", "**80.0**")


def test_missing_cells_leave_out_what_needs_them(make_result: MakeResult, tmp_path: Path) -> None:
    out = report(
        tmp_path,
        make_result("a", values=MISSING, status="partial"),
        make_result("b", 0, status="partial"),
        make_result("b", 1, values=MISSING, status="partial"),
    )
    found = rows(out)
    assert found["a"]["Transfer"] == found["a"]["Avg"] == ""
    assert found["a"]["Last"] == "**80.0**", "this needs the last row only"
    assert found["b"]["Transfer"] == "", "not the mean of the seeds that have it"
    assert "[partial runs]" in (out / "summary.md").read_text()
    table = pd.read_csv(out / "summary.csv", index_col="method")
    assert table.loc["a", ["transfer", "average"]].isna().all()
    per_task = read_markdown((out / "per-task.md").read_text())
    transfer = next(row for row in per_task if row[:2] == ["", "a"] or row[1] == "a")
    assert transfer[3:] == ["", "40.0", "", ""]


def test_nan_in_a_file_is_refused_by_name(make_result: MakeResult, tmp_path: Path) -> None:
    make_result().save(tmp_path / "result.json")
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace("0.2, 0.3, 0.4", "NaN, 0.3, 0.4"))
    with pytest.raises(ClbenchError, match=r"result\.json is damaged.*NaN is no JSON number"):
        find_results([path])


def test_numbers_that_do_not_fit_are_refused(make_result: MakeResult, tmp_path: Path) -> None:
    make_result().save(tmp_path / "result.json")
    path = tmp_path / "result.json"
    path.write_text(re.sub(r'"last": [\d.]+', '"last": 0.9', path.read_text()))
    with pytest.raises(ClbenchError, match=r"result\.json(: summary\.last| is not what clbench)"):
        find_results([path])


def test_one_seed_says_so_and_shows_no_spread(make_result: MakeResult, tmp_path: Path) -> None:
    found = rows(
        report(tmp_path, make_result("a"), make_result("b", 0), make_result("b", 1, shifted(-0.1)))
    )
    assert (found["a"]["n"], found["a"]["Last"]) == ("1", "**80.0**")
    # 0.8 and 0.7: mean 0.75, sample deviation 0.1 / sqrt(2).
    assert (found["b"]["n"], found["b"]["Last"]) == ("2", "<u>75.0 ± 7.1</u>")
    assert not any("±" in text for text in found["a"].values())


def test_versions_and_unfinished_runs_get_their_own_tables(
    make_result: MakeResult, tmp_path: Path
) -> None:
    out = report(
        tmp_path,
        make_result("a"),
        make_result("a", version=2, values=shifted(-0.1)),
        make_result("a", 1, values=PARTIAL, status="partial"),
        make_result("a", 2, status="quick"),
    )
    page = (out / "summary.md").read_text()
    assert page.count("## ") == 4
    assert "benchmark version 2, not 1" in page
    assert "status partial, not complete" in page
    assert "status quick, not complete" in page
    lasts = [row[row_of(page, "Last")] for row in _bodies(page) if row[0] == "a"]
    assert lasts == ["80.0", "70.0", "", "80.0"]


def test_seeds_whose_start_differs_are_noted(make_result: MakeResult, tmp_path: Path) -> None:
    moved = [[0.2, 0.3, 0.42], *VALUES[1:]]
    results = [make_result("a"), make_result("a", 1, values=moved)]
    page = (report(tmp_path, *results) / "summary.md").read_text()
    assert "accuracies before training differ between runs by up to 2.00 points" in page
    console = Console(width=200, record=True, file=(tmp_path / "console.txt").open("w"))
    console.print(render_console(results))
    assert "differ between runs by up to 2.00 points" in console.export_text()
    console.file.close()
    same = report(tmp_path / "same", make_result("a"), make_result("a", 1, shifted(-0.1)))
    assert "differ between runs" not in (same / "summary.md").read_text()


def test_storage_free_methods_stand_apart(make_result: MakeResult, tmp_path: Path) -> None:
    out = report(
        tmp_path,
        make_result("replay", stored=0, needs=("replay",)),
        make_result("free", stored=0, values=shifted(-0.1)),
        make_result("outside", stored=0, external=7),
        make_result("keeps", stored=1),
        make_result("zeroshot", values=[VALUES[0]] * 4, trainable=0, stored=0),
    )
    names = list(rows(out))
    assert names == ["Zero-shot CLIP", "*Storage-free*", "free", "*With storage*", *names[4:]]
    assert names[4:] == ["keeps", "outside", "replay"]
    assert "Storage-free methods keep nothing" in (out / "summary.md").read_text()
    table = pd.read_csv(out / "summary.csv", index_col="method")
    assert table["storage_free"].to_list() == [True, True, False, False, False]


def test_one_kind_of_methods_needs_no_titles(make_result: MakeResult, tmp_path: Path) -> None:
    text = (report(tmp_path, make_result("a"), make_result("b")) / "summary.md").read_text()
    assert "torage" not in text


def row_of(page: str, title: str) -> int:
    return read_markdown(page)[0].index(title)


def _bodies(page: str) -> Rows:
    return without_sections(read_markdown(page))
