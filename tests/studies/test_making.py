"""Studies are made, completed and written; with runs that are made up."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from clbench.core.errors import ClbenchError
from clbench.studies.analysis import Table
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.make import Made, Making, read_measured, read_study
from clbench.studies.runs import MEASURED, Estimate, Runs
from clbench.studies.study import Study, StudyFile
from clbench.studies.write import filled, page_text, write_study
from tests.studies.made_up_runs import make_run

QUIET = Console(quiet=True)
RIGHT, WRONG = [[True] * 4] * 2, [[False] * 4] * 2


def make_study(answer: str = "Last is {last}.", **module: Any) -> Study:
    """A study without runs of its own, read by functions that are given."""
    parts = {
        "table": lambda runs: Table(("Method", "Last"), [("nusa", runs.estimate("last"))]),
        "draw": lambda runs: draw_curves(
            [Panel("Last", "t", "%", [Curve("nusa", [1, 2], [runs.estimate("last"), 1.0])])]
        ),
        "numbers": lambda runs: {"last": str(runs.estimate("last"))},
        **module,
    }
    texts = {"question": "How?", "caption": "Last.", "changes": "Nothing.", "commands": "clbench"}
    texts |= {"finding": "{last}, in short."}
    file = StudyFile(title="A study", answer=answer, runs=None, **texts)
    return Study("made-up", file, SimpleNamespace(**parts))  # type: ignore[arg-type]


def make_made(folder: Path, **changes: Any) -> Made:
    return Made(make_study(**changes), Runs([make_run(folder, "nusa", 0, [RIGHT, RIGHT, WRONG])]))


def test_the_page_holds_every_part_and_its_numbers(tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "docs/made-up.md"
    files = write_study(make_made(tmp_path), out, page)
    text = page.read_text()
    for part in ("# A study", "How?", "![A study](made-up.svg)", "Last is 0.0 [0.0, 0.0]."):
        assert part in text
    assert "1 run on `mini`: `nusa`; seeds 0." in text
    assert "| nusa   | 0.0 [0.0, 0.0] |" in text
    assert (out / "table.csv").read_text() == "Method,Last,Last low,Last high\nnusa,0,0,0\n"
    assert page.with_name("made-up.svg").read_bytes().startswith(b"<?xml")
    assert files == [out / "table.csv", page.with_name("made-up.svg"), page]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    made = make_made(tmp_path)
    first = [file.read_bytes() for file in write_study(made, tmp_path / "a")]
    assert first == [file.read_bytes() for file in write_study(made, tmp_path / "b")]


def test_the_page_begins_with_what_was_found(tmp_path: Path) -> None:
    made = make_made(tmp_path)
    text = page_text(made, Table(("a",), [(1,)]), "a.svg")
    last = made.runs.estimate("last")
    assert text.startswith(f"# A study\n\n**In short:** {last}, in short.\n\nHow?\n\n")


def test_an_answer_cannot_name_what_was_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"\{first\}; there are last"):
        write_study(make_made(tmp_path, answer="First is {first}."), tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_smoke_runs_answer_nothing(tmp_path: Path) -> None:
    made = make_made(tmp_path, answer="{nothing}")
    text = page_text(Made(made.study, made.runs, quick=True), Table(("a",), [(1,)]), "a.svg")
    assert "these numbers mean nothing" in text


def test_missing_results_are_counted_and_the_cure_is_named(tmp_path: Path) -> None:
    from clbench.studies.study import find_study

    with pytest.raises(ClbenchError, match=r"24 of 24 results are missing.*clbench study rho-scan"):
        read_study(find_study("rho-scan"), tmp_path)


def test_measurements_are_made_once_and_anew_if_asked_or_if_what_they_depend_on_changed(
    tmp_path: Path,
) -> None:
    calls: list[bool] = []

    def measure(*, quick: bool) -> dict[str, int]:
        calls.append(quick)
        return {"calls": len(calls)}

    version = {"of": 1}
    study = make_study(measure=measure, basis=lambda *, quick: dict(version))
    making = Making(tmp_path / "runs", tmp_path / "out")
    assert making.make(study, QUIET).runs.measured == {"calls": 1}
    assert making.make(study, QUIET).runs.measured == {"calls": 1}
    fresh = Making(tmp_path / "runs", tmp_path / "out", fresh=True)
    assert fresh.make(study, QUIET).runs.measured == {"calls": 2}
    quick = Making(tmp_path / "runs", tmp_path / "out", quick=True)
    assert quick.make(study, QUIET).runs.measured == {"calls": 3}
    assert calls == [False, False, True]
    kept = json.loads((tmp_path / "out" / MEASURED).read_text())
    assert kept == {"basis": {"of": 1}, "found": {"calls": 2}}
    version["of"] = 2
    assert making.make(study, QUIET).runs.measured == {"calls": 4}
    assert making.make(study, QUIET).runs.measured == {"calls": 4}


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b"{", b"{}", b'{"basis": {}, "found": 1}']
)
def test_damaged_measurements_are_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "measured.json"
    file.write_bytes(content)
    with pytest.raises(ClbenchError, match="delete it, and measure again"):
        read_measured(file)


def test_tables_print_whole_numbers_digits_and_nothing() -> None:
    rows = [("a", 3, 0.12345, None), ("b", 4, 1.0, Estimate(1, 0, 2))]
    table = Table(("name", "n", "x", "e"), rows, digits={"x": 3})
    grid = table.grid()
    assert [[cell.text for cell in row] for row in grid.rows] == [
        ["a", "3", "0.123", ""],
        ["b", "4", "1.000", "1.0 [0.0, 2.0]"],
    ]
    assert grid.numeric == (False, True, True, True)
    assert list(table.frame().columns) == ["name", "n", "x", "e", "e low", "e high"]


def test_numbers_of_any_magnitude_are_printed_with_their_power() -> None:
    table = Table(("share",), [(1.234e-13,), (0.5,), (math.nan,)], powers=("share",))
    assert [row[0].text for row in table.grid().rows] == ["1.2e-13", "5.0e-01", ""]
    assert table.frame()["share"][0] == 1.234e-13


def test_numbers_are_filled_in_wherever_they_stand() -> None:
    assert filled("{a} and {a b}, {a}", {"a": "1", "a b": "2"}) == "1 and 2, 1"
