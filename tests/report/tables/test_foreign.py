"""Matrices from elsewhere: what their files say, and where they stand in a report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.task import Setting
from clbench.report.page.build import page_html
from clbench.report.tables.foreign import (
    ForeignMatrix,
    foreign_tables,
    read_foreign,
    write_foreign,
)
from clbench.report.tables.groups import comparable_groups
from clbench.report.write import write_report
from tests.made_up import INCREMENTAL, TASKS, MakeResult, shifted

TEXT = """\
# name: Theirs, improved
# source: https://example.org/paper, Table 2
# copied by hand
after,arrows,clocks,flags
zero-shot,20,30,40
arrows,90,40,50
clocks,80,90,60
flags,70,80,100
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.csv"
    path.write_text(TEXT)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_file_says_what_it_is(theirs: Path) -> None:
    foreign = read_foreign(theirs)
    assert foreign.name == "Theirs, improved"
    assert foreign.source == "https://example.org/paper, Table 2"
    assert foreign.matrix.values[3].tolist() == [0.7, 0.8, 1.0]
    theirs.write_text("".join(TEXT.splitlines(keepends=True)[3:]))
    assert read_foreign(theirs) == ForeignMatrix("theirs", "", foreign.matrix)


def test_the_setting_decides_what_the_metrics_mean(theirs: Path) -> None:
    rows = "after,a,b\nimages,10,30\na,0.9,\nb,0.5,0.7\n"
    theirs.write_text(rows)
    assert read_foreign(theirs).matrix.summary()["average"] is None
    theirs.write_text(f"# setting: class-incremental\n{rows}")
    summary = json.loads(invoke("metrics", theirs, "--json").output)
    assert summary["last"] == pytest.approx((10 * 0.5 + 30 * 0.7) / 40)
    assert summary["average"] == pytest.approx((0.9 + 0.65) / 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("# setting: task-gven", r"unknown setting 'task-gven': did you mean 'task-given'"),
        ("# sourcee: x", r"unknown statement 'sourcee': did you mean 'source'"),
    ],
)
def test_misspelt_statements_are_one_line(theirs: Path, line: str, message: str) -> None:
    theirs.write_text(f"{line}\n{TEXT}")
    with pytest.raises(ClbenchError, match=message) as caught:
        read_foreign(theirs)
    assert "theirs.csv" in str(caught.value)


@pytest.mark.parametrize("setting", list(Setting))
def test_what_is_written_is_read(tmp_path: Path, setting: Setting) -> None:
    matrix = AccuracyMatrix(("a", "b"), [[0.25, 0.5], [0.75, 0.5], [0.5, 1.0]], None, setting)
    foreign = ForeignMatrix("A: B, C", "here\nand there", matrix)
    write_foreign(foreign, tmp_path / "m.csv")
    read = read_foreign(tmp_path / "m.csv")
    assert (read.name, read.source, read.matrix) == ("A: B, C", "here and there", matrix)
    write_foreign(ForeignMatrix("m", "", matrix), tmp_path / "m.csv")
    first = (tmp_path / "m.csv").read_text().splitlines()[0]
    assert first == ("after,a,b" if setting is Setting.TASK_GIVEN else f"# setting: {setting}")


def test_they_stand_beside_the_runs_with_the_same_tasks(
    theirs: Path, make_result: MakeResult
) -> None:
    results = [make_result(seed=0), make_result(seed=1, values=shifted(-0.05))]
    (table,) = foreign_tables(comparable_groups(results), [read_foreign(theirs)])
    assert [row[0].text for row in table.grid.rows] == [
        "zero-shot (before training)",
        "nusa",
        "Theirs, improved",
    ]
    assert table.grid.header[-1] == "Source"
    assert table.grid.rows[-1][-1].text == "https://example.org/paper, Table 2"
    assert table.grid.sections[2] == "From elsewhere"
    assert [cell.mark for row in table.grid.rows for cell in row] == [""] * 9 * 3, "not ranked"
    assert table.frame.loc["Theirs, improved", "last"] == pytest.approx(2.5 / 3)
    assert table.frame.loc["nusa", "last"] == pytest.approx((0.8 + 0.75) / 2)
    assert "not measured by clbench" in " ".join(table.notes)


def test_other_tasks_and_other_orders_get_tables_of_their_own(make_result: MakeResult) -> None:
    values = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [0.7, 0.9, 0.6], [0.6, 0.8, 1.0]]
    same = ForeignMatrix("same", "", AccuracyMatrix(TASKS, values))
    turned = ForeignMatrix("turned", "", AccuracyMatrix(TASKS[::-1], values))
    hidden = ForeignMatrix("hidden", "", AccuracyMatrix(TASKS, values, None, Setting.TASK_HIDDEN))
    steps = AccuracyMatrix.from_lists(TASKS, INCREMENTAL, [5, 5, 5], Setting.CLASS_INCREMENTAL)
    groups = comparable_groups([make_result()])
    tables = foreign_tables(groups, [same, turned, hidden, ForeignMatrix("steps", "", steps)])
    names = [[row[0].text for row in table.grid.rows] for table in tables]
    assert names == [
        ["zero-shot (before training)", "nusa", "same"],
        ["turned"],
        ["hidden"],
        ["steps"],
    ]
    assert [table.stem for table in tables] == [f"elsewhere-{i}" for i in (1, 2, 3, 4)]


def test_a_report_writes_them_in_every_format(
    theirs: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    result, foreign = make_result(), read_foreign(theirs)
    written = write_report([result], tmp_path / "out", foreign=[foreign])
    assert {f"elsewhere.{e}" for e in ("md", "csv", "tex", "html")} <= {p.name for p in written}
    table = pd.read_csv(tmp_path / "out" / "elsewhere.csv", index_col="method")
    assert table.loc["Theirs, improved", "kind"] == "foreign"
    assert "Theirs, improved" not in (tmp_path / "out" / "summary.md").read_text()
    page = page_html([result], figures={"mini-I-ViT-B-16": []}, foreign=[foreign])
    assert "Theirs, improved" in page


def test_the_command_takes_runs_and_matrices(
    theirs: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    make_result().save(tmp_path / "runs" / "result.json")
    both = invoke("report", tmp_path / "runs", theirs, "--out", tmp_path / "out")
    assert both.exit_code == 0, both.output
    assert "From elsewhere and measured" in both.output
    alone = invoke("report", theirs)
    assert alone.exit_code == 0, alone.output
    assert "Theirs, improved" in alone.output
    refused = invoke("report", theirs, "--published")
    assert refused.exit_code == 2
    assert "are about runs" in refused.stderr
    shown = invoke("metrics", theirs).output
    assert shown.startswith("Theirs, improved (https://example.org/paper, Table 2)")
    assert "83.33 %" in shown
