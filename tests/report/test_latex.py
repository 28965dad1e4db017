"""LaTeX tables fit the text of an A4 page, also with 33 methods, eleven tasks or fifty steps."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from clbench.core.results.result import RunResult
from clbench.report.formats.cells import BEST, Cell, Grid
from clbench.report.formats.fitting import PAGE_HEIGHT, fitting_parts
from clbench.report.formats.latex import to_latex
from clbench.report.tables.grid import make_view
from clbench.report.write import report_files
from tests.report.studies import hostile_study, incremental_study, mtil_study, wide_study


def table(columns: int, rows: int, label: str = "method", title: str = "Transfer") -> Grid:
    names = [f"{label} {i}" for i in range(rows)]
    numbers = [Cell("88.8 ± 0.3", BEST)] * columns
    header = ("Method", *(f"{title} {j}" for j in range(columns)))
    body = tuple((Cell(name), *numbers) for name in names)
    return Grid(header, body, (False, *[True] * columns))


def test_a_small_table_is_one_part_in_the_documents_type() -> None:
    (part,) = fitting_parts(table(3, 5))
    assert part.grid == table(3, 5)
    assert part.style.size.command == ""
    assert not part.wrapped


def test_more_columns_make_the_type_smaller_before_the_table_is_split() -> None:
    counts = [len(fitting_parts(table(n, 3))) for n in range(1, 15)]
    assert counts == sorted(counts)
    assert (counts[0], counts[4]) == (1, 1)
    assert counts[-1] > 1


def test_parts_hold_every_column_once_behind_the_first() -> None:
    grid = table(14, 3)
    parts = fitting_parts(grid)
    assert [part.grid.header[0] for part in parts] == ["Method"] * len(parts)
    assert [title for part in parts for title in part.grid.header[1:]] == list(grid.header[1:])


def test_long_titles_of_numbers_stand_upright() -> None:
    grid = Grid(
        ("Method", *["A rather long data set"] * 11),
        ((Cell("nusa"), *[Cell("88.8")] * 11),),
        (False, *[True] * 11),
    )
    (part,) = fitting_parts(grid)
    assert part.style.rotated
    assert to_latex(grid).count("\\rotatebox{90}{A rather long data set}") == 11


def test_what_columns_share_stands_above_them_in_every_part() -> None:
    (part,) = fitting_parts(shared := replace(table(6, 3), above=("", *["Order I"] * 6)))
    assert part.grid == shared
    lines = to_latex(shared).splitlines()
    assert r" & \multicolumn{6}{c}{Order I} \\" in lines
    assert r"\cmidrule(lr){2-7}" in lines
    parts = fitting_parts(replace(table(24, 3), above=("", *["Order I"] * 12, *["Order II"] * 12)))
    above = [heading for part in parts for heading in part.grid.above[1:]]
    assert len(parts) > 1
    assert above == ["Order I"] * 12 + ["Order II"] * 12


def test_a_heading_wider_than_its_columns_takes_room() -> None:
    plain = table(4, 3)
    (narrow,) = fitting_parts(replace(plain, above=("", *["Order I"] * 4)))
    heading = "One order of tasks, and all that need be said about how it came to be that one"
    (wide,) = fitting_parts(replace(plain, above=("", *[heading] * 4)))
    assert narrow.style == fitting_parts(plain)[0].style
    assert wide.style.size.points < narrow.style.size.points


def test_long_tables_go_on_below_the_title_of_their_block() -> None:
    grid = table(2, 120)
    grid = Grid(grid.header, grid.rows, grid.numeric, frozenset({20}), {20: "With storage"})
    parts = fitting_parts(grid)
    assert [row for part in parts for row in part.grid.rows] == list(grid.rows)
    assert all(len(p.grid.rows) * p.style.size.leading < PAGE_HEIGHT for p in parts)
    assert [part.grid.sections for part in parts[-1:]] == [{0: "With storage (continued)"}]


def test_type_is_as_large_as_one_page_allows() -> None:
    sizes = [[part.style.size.points for part in fitting_parts(table(2, n))] for n in (40, 50, 120)]
    assert sizes == [[10.0], [8.0], [10.0] * 3]


def test_a_block_that_fits_a_page_is_not_torn() -> None:
    grid = table(2, 90)
    grid = Grid(grid.header, grid.rows, grid.numeric, frozenset({30, 60}))
    assert [len(part.grid.rows) for part in fitting_parts(grid)] == [30, 30, 30]


def test_texts_wrap_and_marks_stay_with_their_word() -> None:
    grid = table(5, 2, "zero-shot before any training ‡")
    (part,) = fitting_parts(grid)
    assert part.wrapped
    assert "\\\\‡" not in to_latex(grid)
    assert "\\begin{tabular}[t]{@{}l@{}}zero-shot" in to_latex(grid)


def test_the_paper_preset_is_one_table_per_page_with_33_methods() -> None:
    runs = wide_study(seeds=(0, 1))
    files = report_files(runs, view=make_view(None, None, None, "paper"))
    assert files["summary.tex"].count("\\toprule") == 1
    assert files["per-task.tex"].count("\\toprule") == 3, "Transfer, Avg and Last"
    head = next(line for line in files["summary.tex"].splitlines() if line.startswith("Method"))
    plain = re.sub(r"\\rotatebox\{90\}\{(.*?)\}", r"\1", head)
    assert plain == r"Method & Transfer & Avg & Last & Learned & Forgetting & Stored \\"


@pytest.mark.slow
def test_every_table_compiles_without_an_overfull_box(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is missing: apt install texlive-latex-base texlive-latex-recommended")
    wide, small = wide_study(seeds=(0, 1)), [*mtil_study(), *hostile_study()]
    log = compiled(tmp_path / "full", files([*wide, *incremental_study(50)]))
    log += compiled(tmp_path / "paper", files(wide, preset="paper"))
    log += compiled(tmp_path / "small", files(small))
    assert "Output written on" in log
    assert [line for line in log.splitlines() if line.startswith("Overfull")] == []


def files(runs: list[RunResult], preset: str | None = None) -> Mapping[str, str]:
    view = make_view(None, None, None, preset)
    written = report_files(runs, deviation=lambda _: None, view=view)
    return {name: text for name, text in written.items() if name.endswith(".tex")}


def compiled(folder: Path, tables: Mapping[str, str]) -> str:
    for name, text in tables.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    inputs = "\n\\clearpage\n".join(f"\\input{{{name}}}" for name in tables)
    (folder / "all.tex").write_text(
        "\\documentclass[a4paper]{article}\n\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
