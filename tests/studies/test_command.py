"""`clbench study` from the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench import registry
from clbench.cli.app import app

RUNNER = CliRunner()


def test_without_a_name_all_are_listed() -> None:
    shown = RUNNER.invoke(app, ["study"]).output
    assert [line.partition(":")[0] for line in shown.splitlines()] == registry.study_names()


def test_an_unknown_name_is_one_line() -> None:
    result = RUNNER.invoke(app, ["study", "rho-scam"])
    assert result.exit_code == 2
    assert "did you mean 'rho-scan'" in result.output
    assert result.output.count("\n") == 1


def test_a_dry_run_says_what_is_left(tmp_path: Path) -> None:
    options = ["--dry-run", "--out", str(tmp_path), "--runs-dir", str(tmp_path / "runs")]
    shown = RUNNER.invoke(app, ["study", "rho-scan", *options]).output
    assert shown.count("clbench run --method nusa") == 24
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.study_names())
def test_a_smoke_run_leaves_page_figure_and_table(name: str, tmp_path: Path) -> None:
    options = ["--quick", "--out", str(tmp_path / "out"), "--runs-dir", str(tmp_path / "runs")]
    result = RUNNER.invoke(app, ["study", name, *options, "-q", "--jobs", "2"])
    assert result.exit_code == 0, result.output
    assert "numbers mean nothing" in (tmp_path / "out/README.md").read_text()
    assert (tmp_path / f"out/{name}.svg").stat().st_size > 1000
    assert (tmp_path / "out/table.csv").read_text().count("\n") > 1
