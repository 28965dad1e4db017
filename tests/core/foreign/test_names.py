"""Names from outside reach terminals, spreadsheets and Markdown as text and nothing else."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.foreign.console import SafeConsole
from clbench.core.foreign.names import escape_markdown, from_cell, printable, to_cell
from clbench.core.results.result import FILE_NAME
from clbench.report.console import render_console
from clbench.report.run_files import publish
from clbench.report.tables.matrix_csv import format_matrix_csv, read_matrix_csv
from clbench.report.write import write_report
from tests.made_up import make_result

ROOT = Path(__file__).parents[3]
STEERING = "a\x1b[2J\x1b]0;owned\x07b\u202ec\x9bd"
FORMULA = "=HYPERLINK(1)"
MARKUP = "<img src=x>"


def printed(*things: object) -> str:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    console.print(*things)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_printed_names_cannot_steer_the_terminal() -> None:
    table = Table("name")
    table.add_row(STEERING)
    for text in (printed(STEERING), printed(table)):
        assert not set("\x1b\x07\u202e\x9b") & set(text)
        assert "\\x1b[2J" in text


def test_styles_of_its_own_are_left_to_the_console() -> None:
    console = SafeConsole(
        file=io.StringIO(), force_terminal=True, color_system="standard", legacy_windows=False
    )
    console.print("[bold]x[/bold]")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "\x1b[1mx\x1b[0m\n"


def test_results_with_such_names_are_printed_as_text() -> None:
    result = make_result(method=STEERING, benchmark=STEERING, tasks=(STEERING, "b", "c"))
    assert not set("\x1b\x07\u202e\x9b") & set(printed(render_console([result])))


@pytest.mark.parametrize("command", ["report", "show", "verify"])
def test_commands_print_such_names_as_text(command: str, tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    make_result(method=STEERING, config_hash=STEERING, tasks=(STEERING, "b", "c")).save(file)
    outcome = CliRunner().invoke(app, [command, str(file)])
    assert not set("\x1b\x07\u202e\x9b") & set(outcome.output)


def test_everything_is_printed_on_that_console() -> None:
    """Another one would pass names on as they are."""
    made = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("clbench", "datamodules", "methods")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Console"
    ]
    assert made == []


@given(st.text())
def test_nothing_that_is_printed_is_obeyed(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in printable(text))
    printable(text).encode()


@given(st.text(st.sampled_from("=+-@'\t\r a1.")))
def test_cells_come_back_as_they_were_and_are_no_formulas(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell[:1] in tuple("=+-@\t\r"):
        float(cell)


def test_tables_for_spreadsheets_hold_no_formulas(tmp_path: Path) -> None:
    tasks = (FORMULA, "@b", "-c")
    result = make_result(method=FORMULA, tasks=tasks)
    publish(result, tmp_path)
    write_report([result], tmp_path / "out")
    files = [*tmp_path.rglob("*.csv")]
    assert len(files) >= 4
    for path in files:
        for row in csv.reader(path.read_text().splitlines()):
            assert not [cell for cell in row if cell[:1] in tuple("=+@")], path
    assert read_matrix_csv(tmp_path / "matrix.csv").tasks == tasks
    assert list(pd.read_csv(tmp_path / "matrix.csv").columns[1:]) == [f"'{t}" for t in tasks]


def test_a_foreign_matrix_with_such_names_is_read(tmp_path: Path) -> None:
    tasks = ("'=1+1", "'n", "+2")
    result = make_result(tasks=tasks)
    (tmp_path / "m.csv").write_text(format_matrix_csv(result.matrix))
    assert read_matrix_csv(tmp_path / "m.csv").tasks == tasks


def test_markdown_shows_html_instead_of_passing_it_on(tmp_path: Path) -> None:
    result = make_result(method=MARKUP, benchmark=MARKUP, tasks=(MARKUP, "b", "c"))
    other = make_result(method=MARKUP, benchmark="other", tasks=(MARKUP, "b", "c"))
    write_report([result, other], tmp_path)
    publish(result, tmp_path)
    files = [*tmp_path.rglob("*.md")]
    assert len(files) >= 5
    for path in files:
        assert MARKUP not in path.read_text().replace(f"\\{MARKUP}", ""), path
    assert escape_markdown("a\nb\x1b") == "a b\\x1b"
