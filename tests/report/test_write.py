"""The report folder: its texts to the letter, and the same bytes from the same runs.

To renew the expected texts after a wanted change, write the report of the fixture `study` to
``tests/data/report`` and read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import BEST, SECOND, Cell, Grid
from clbench.report.formats.latex import to_latex
from clbench.report.formats.render import to_markdown
from clbench.report.tables.matrix_csv import read_matrix_csv
from clbench.report.write import write_report

MakeResult = Callable[..., RunResult]
EXPECTED = Path(__file__).parents[1] / "data" / "report"
FILES = [
    "summary.md",
    "summary.csv",
    "summary.tex",
    "per-task.md",
    "per-task.csv",
    "per-task.tex",
    "matrices/lora_r-aaaa0000-seed0.md",
    "matrices/nusa-seed1.csv",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", FILES)
def test_texts_are_the_expected_ones(study: list[RunResult], tmp_path: Path, name: str) -> None:
    write_report(study, tmp_path)
    assert (tmp_path / name).read_text() == (EXPECTED / name).read_text()


def test_returns_what_it_wrote(study: list[RunResult], tmp_path: Path) -> None:
    written = write_report(study, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == contents(tmp_path).keys()
    matrices = [path.name for path in written if path.parent.name == "matrices"]
    assert len(matrices) == 2 * len(study) == len(set(matrices))


def test_the_same_runs_give_the_same_bytes_in_any_order(
    study: list[RunResult], make_result: MakeResult, tmp_path: Path
) -> None:
    runs = [*study, make_result(fingerprint="f2"), make_result(status="quick")]
    write_report(runs, tmp_path / "once")
    write_report(runs[::-1], tmp_path / "again")
    write_report(runs, tmp_path / "again")
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_results_read_from_files_give_the_same_report(
    study: list[RunResult], tmp_path: Path
) -> None:
    for i, result in enumerate(study):
        result.save(tmp_path / str(i) / "result.json")
    write_report(study, tmp_path / "direct")
    loaded = [RunResult.load(tmp_path / str(i)) for i in range(len(study))]
    write_report(loaded, tmp_path / "loaded")
    assert contents(tmp_path / "direct") == contents(tmp_path / "loaded")


def test_incomparable_runs_get_folders_and_a_common_page(
    study: list[RunResult], make_result: MakeResult, tmp_path: Path
) -> None:
    incremental = make_result(
        values=[[None] * 3, [1.0, None, None], [0.6, 0.8, None], [0.5, 0.7, 0.9]],
        setting=Setting.CLASS_INCREMENTAL,
        benchmark="mini-cil",
    )
    write_report([*study, make_result(fingerprint="f2"), incremental], tmp_path)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["mini-I-ViT-B-16", "mini-I-ViT-B-16-2", "mini-cil-I-ViT-B-16"]
    page = (tmp_path / "summary.md").read_text()
    for folder in folders:
        assert (tmp_path / folder / "summary.md").read_text() in page
    assert "Not to be compared with mini-I-ViT-B-16: backbone fingerprint f2, not f1." in page
    assert "accuracy on all classes seen so far" in page
    # No row of one group stands in a table of another.
    other = pd.read_csv(tmp_path / "mini-I-ViT-B-16-2" / "summary.csv")
    assert other["method"].to_list() == ["zero-shot (before training)", "nusa"]


def test_numbers_in_csv_are_exact_fractions(study: list[RunResult], tmp_path: Path) -> None:
    write_report(study, tmp_path)
    table = pd.read_csv(tmp_path / "summary.csv", index_col="method")
    assert table.loc["nusa", "last"] == pytest.approx((0.8 + 0.75) / 2, abs=1e-10)
    matrix = read_matrix_csv(tmp_path / "matrices" / "nusa-seed0.csv")
    assert matrix.to_lists() == study[0].matrix.to_lists()
    assert matrix.tasks == study[0].matrix.tasks


def test_no_results_and_no_room_are_user_errors(study: list[RunResult], tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="no results"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ClbenchError, match="cannot write"):
        write_report(study, tmp_path / "file")


GRID = Grid(
    header=("Method", "50% & up"),
    rows=(
        (Cell("a_b|c"), Cell("-1.0 ± 0.5", BEST)),
        (Cell(r"~x^{2}\y"), Cell("2.0", SECOND)),
        (Cell("#1 <i>"), Cell("")),
    ),
    numeric=(False, True),
    rules=frozenset({1}),
)


def test_markdown_is_aligned_and_escaped() -> None:
    assert to_markdown(GRID) == (
        "| Method   |       50% & up |\n"
        "| -------- | -------------: |\n"
        "| a_b\\|c   | **-1.0 ± 0.5** |\n"
        "| ~x^{2}\\y |     <u>2.0</u> |\n"
        "| #1 \\<i>  |                |\n"
    )


def test_latex_is_escaped() -> None:
    assert to_latex(GRID) == (
        "{\\noindent\\setlength{\\tabcolsep}{6pt}%\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        "Method & 50\\% \\& up \\\\\n"
        "\\midrule\n"
        "a\\_b|c & \\textbf{$-$1.0 $\\pm$ 0.5} \\\\\n"
        "\\midrule\n"
        "\\textasciitilde{}x\\textasciicircum{}\\{2\\}\\textbackslash{}y & \\underline{2.0} \\\\\n"
        "\\#1 <i> & -- \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}}\n"
    )
