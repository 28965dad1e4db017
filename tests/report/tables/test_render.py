"""Markdown, CSV, LaTeX and HTML hold the same numbers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.paired.comparison import compare_methods
from clbench.report.tables.grid import SUMMARY_COLUMNS, percent
from clbench.report.write import write_report
from tests.made_up import INCREMENTAL
from tests.report.answers import write_run
from tests.report.formats import (
    read_html,
    read_latex,
    read_markdown,
    without_blocks,
    without_sections,
)

MakeResult = Callable[..., RunResult]


@pytest.fixture
def report(study: list[RunResult], make_result: MakeResult, tmp_path: Path) -> Path:
    """A report with every kind of table: two orders, steps, a comparison, published numbers."""
    awkward = {"tasks": ("50%_a&b", "$x^2$ {c}", "#1 ~d\\e")}
    steps = [
        make_result(
            "lora_r", 0, INCREMENTAL, benchmark=f"new-{k}step", setting=Setting.CLASS_INCREMENTAL
        )
        for k in (10, 20)
    ]
    other = make_result("nusa", 0, order="II", splits={})
    runs = [
        write_run(tmp_path / "runs" / str(i), result)
        for i, result in enumerate([*study, other, *steps, make_result("x", **awkward)])
    ]
    runs += [write_run(tmp_path / "runs/y", make_result("y", seed=0, **awkward))]
    write_report(
        [result for _, result in runs],
        tmp_path / "out",
        comparisons=compare_methods(runs, "x", "y"),
        deviation=lambda _: None,
    )
    return tmp_path / "out"


def stems(report: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in report.rglob("*.tex"))


def test_there_is_every_kind_of_table(report: Path) -> None:
    names = {path.name for path in stems(report)}
    assert names > {"summary", "per-task", "compare-x-y", "published"}
    assert any(name.startswith("orders-mini") for name in names)
    assert any(name.startswith("steps-new") for name in names)


def test_all_formats_have_the_same_cells(report: Path) -> None:
    for stem in stems(report):
        markdown = read_markdown(stem.with_suffix(".md").read_text())
        assert len(markdown) > 1 or stem.name == "published", stem
        assert read_html(stem.with_suffix(".html").read_text()) == markdown, stem
        latex = read_latex(stem.with_suffix(".tex").read_text())
        assert latex == without_blocks(without_sections(markdown)), stem


def test_csv_rounds_to_what_is_printed(report: Path) -> None:
    checked = 0
    for stem in (stem for stem in stems(report) if stem.name == "summary"):
        header, *rows = without_sections(read_markdown(stem.with_suffix(".md").read_text()))
        frame = pd.read_csv(stem.with_suffix(".csv"), index_col="method")
        columns = {column.title: column.key for column in SUMMARY_COLUMNS}
        for row in rows:
            for title, text in zip(header[1:], row[1:], strict=True):
                value = frame.loc[row[0], columns[title]]
                if title in ("Transfer", "Avg", "Last", "Forgetting", "BWT") and text:
                    spread = frame.loc[row[0], f"{columns[title]}_std"]
                    expected = percent(value) + ("" if pd.isna(spread) else f" ± {percent(spread)}")
                    assert text == expected
                    checked += 1
                assert (text == "") == bool(pd.isna(value))
    assert checked > 30


def test_per_task_csv_rounds_to_what_is_printed(report: Path) -> None:
    stem = next(s for s in stems(report) if s.name == "per-task" and "-II-" not in str(s))
    with stem.with_suffix(".csv").open() as file:
        values = [percent(float(row["mean"])) for row in csv.DictReader(file) if row["mean"]]
    rows = read_markdown(stem.with_suffix(".md").read_text())[1:]
    printed = [cell for row in rows for cell in row[3:-1] if cell]
    assert printed == values


def test_comparisons_in_csv_round_to_what_is_printed(report: Path) -> None:
    (stem,) = (stem for stem in stems(report) if stem.name == "compare-x-y")
    frame = pd.read_csv(stem.with_suffix(".csv"), index_col="metric")
    rows = read_markdown(stem.with_suffix(".md").read_text())[1:]
    assert [row[5] for row in rows] == [percent(v, signed=True) for v in frame["difference"]]
    assert [row[3] for row in rows] == [percent(v) for v in frame["first"]]
