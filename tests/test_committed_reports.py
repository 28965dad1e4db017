"""The committed results are sound, and the tables and the picture shown are those of the results.

Which methods have results, and which of them is better, is nothing to test: a new method or a new
measurement must not make these tests fail.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from clbench import config
from clbench.cli.app import app
from clbench.core.results.correctness import SUFFIX
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import counted_rows, require_sound
from clbench.core.settings import RunSettings
from clbench.core.task import Setting
from clbench.lock import SHOWN
from clbench.naming import titled, titles
from clbench.report.embed import embedded
from clbench.report.figures.chosen import default_choice
from clbench.report.figures.draw import draw_figures
from clbench.report.figures.style import file_bytes
from clbench.report.search.read import read_search
from clbench.report.search.write import search_texts
from clbench.report.tables.collection import summary_document
from clbench.report.tables.groups import comparable_groups, file_name
from clbench.tidy import find_results
from tests.report.drawn_text import svg_texts

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"
FILES = sorted(REPORTS.rglob("results/*.json"))
FOLDERS = sorted({file.parent for file in FILES})
TABLED = [f for f in FOLDERS if not {REPORTS / "studies", REPORTS / "tuning"} & {*f.parents}]
"""Folders beside which tables of comparable runs lie; studies and searches have others."""
MINI = [file for file in FILES if file.parent == REPORTS / "mini/results"]
VARIANTS = [file for file in FILES if file.parent == REPORTS / "mini-variants/results"]
EACH = {re.sub(r"seed\d+", "", file.name): file for file in (*MINI, *VARIANTS)}
"""A result of each method and settings: the hash in its name is the same for all seeds."""
PAGES = [ROOT / "README.md", ROOT / "docs/studies/index.md", *sorted(REPORTS.rglob("README.md"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def metrics(result: RunResult) -> dict[str, float]:
    """The metrics in the words of docs/design.md, from the accuracies alone."""
    n, a = result.accuracy.counts, np.array(result.accuracy.values, dtype=float)
    last = len(n)
    tasks = range(1, last + 1)

    def cell(t: int, j: int) -> float:
        return float(a[t, j - 1])

    def seen(t: int) -> float:
        """Accuracy on the images of all classes seen after t tasks."""
        return sum(n[j] * a[t, j] for j in range(t)) / sum(n[:t])

    best = [max(cell(t, j) for t in range(j, last)) for j in tasks[:-1]]
    found = {
        "learned": np.mean([cell(t, t) for t in range(1, last + 1)]),
        "forgetting": np.mean([best[j - 1] - cell(last, j) for j in tasks[:-1]]),
        "backward_transfer": np.mean([cell(last, j) - cell(j, j) for j in tasks[:-1]]),
    }
    if result.benchmark.setting is Setting.CLASS_INCREMENTAL:
        return found | {"average": np.mean([seen(t) for t in tasks]), "last": seen(last)}
    return found | {
        "transfer": np.mean([np.mean([cell(t, j) for t in range(1, j)]) for j in tasks[1:]]),
        "average": np.mean([cell(t, j) for t in tasks for j in tasks]),
        "last": np.mean([cell(last, j) for j in tasks]),
        "forward_transfer": np.mean([cell(j - 1, j) - cell(0, j) for j in tasks[1:]]),
    }


def test_every_record_of_single_images_has_its_result() -> None:
    records = set(REPORTS.rglob(f"*{SUFFIX}"))
    assert records
    assert records <= {file.with_suffix(SUFFIX) for file in FILES}


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_results_are_whole_and_agree_with_their_records_settings_and_accuracies(
    folder: Path,
) -> None:
    for file in sorted(folder.glob("*.json")):
        result = require_sound(file)
        assert result.status == "complete", file
        method = file_name(result.method.name)
        assert file.name == f"{method}-seed{result.seed}-{result.config_hash}.json"
        rows = counted_rows(file, result)
        if result.schema_version > 1:  # earlier runs kept no record
            assert set(rows) == set(range(len(result.matrix.values))), file
        settings = RunSettings.model_validate(result.config)
        assert settings.fingerprint() == result.config_hash, file
        assert (settings.method.name, settings.seed) == (result.method.name, result.seed)
        expected = metrics(result)
        found = {key: result.summary[key] for key in expected}
        assert found == pytest.approx(expected, abs=1e-9), file


@pytest.mark.parametrize("file", EACH.values(), ids=name)
def test_the_results_of_the_table_are_those_of_the_recipes(file: Path) -> None:
    """`make compare` finds the same settings, so that it would measure what the table says."""
    result = RunResult.load(file)
    method, benchmark = result.method.name, result.config["benchmark"]
    overrides = {f"benchmark.{key}": value for key, value in benchmark["options"].items()}
    overrides["seed"] = result.seed
    settings, _ = config.resolve(method, benchmark["name"], overrides=overrides)
    assert settings.fingerprint() == result.config_hash, (
        f"the recipe of {method} has changed: remove its results and run "
        f"`make compare ARGS='--methods {method}'`"
    )


@pytest.mark.parametrize("folder", TABLED, ids=name)
def test_every_run_is_in_the_tables_of_its_folder(folder: Path) -> None:
    for group in comparable_groups(find_results([folder])):
        keys = list(metrics(group.results[0]))
        runs: dict[tuple[str, str], list[list[float]]] = {}
        for result in group.results:
            row = [metrics(result)[key] for key in keys]
            runs.setdefault((result.method.name, result.config_hash), []).append(row)
        expected = sorted([len(seeds), *np.mean(seeds, axis=0)] for seeds in runs.values())
        document = summary_document(group)
        table = pd.read_csv(io.StringIO(document.files()["summary.csv"]))
        # Where no run is one of zero-shot, the table has a row more that shows it.
        measured = table[~table["method"].str.contains("(before training)", regex=False)]
        found = sorted(measured[["n", *keys]].to_numpy().tolist())
        assert np.array(found) == pytest.approx(np.array(expected), abs=1e-9)


def made_again(folder: Path, only: str = "") -> None:
    """What `make report` writes below reports/, but for the page, in another folder."""
    make = ["make", "--no-print-directory", "-n", "report"]
    said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in said.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program.endswith("/clbench") and only in line:
            out = words.index("--out") + 1
            words[out] = str(folder / Path(words[out]).relative_to("reports"))
            words = [word for word in words if word != "--html"]
            outcome = CliRunner().invoke(app, words)
            assert outcome.exit_code == 0, (line, outcome.output)


def test_the_short_table_is_that_of_the_results(tmp_path: Path) -> None:
    made_again(tmp_path, "/short")
    written = (tmp_path / "mini/short/summary.md").read_text()
    assert (REPORTS / "mini/short/summary.md").read_text() == written, "run `make report`"


@pytest.mark.slow
def test_intervals_ranks_and_claims_are_those_of_the_results(tmp_path: Path) -> None:
    made_again(tmp_path)
    tables = [name for name in SHOWN if name.endswith(".md")]
    committed = [file for name in tables for file in REPORTS.glob(f"*/{name}")]
    assert committed
    for file in committed:
        assert (tmp_path / file.relative_to(REPORTS)).read_text() == file.read_text(), file


def test_the_search_gave_all_methods_the_same_and_its_tables_are_those_of_its_trials() -> None:
    folder = REPORTS / "tuning"
    search = read_search(folder, titles())
    assert {len(method.trials) for method in search.methods if method.searched} == {search.budget}
    assert [method.name for method in search.methods if method.problem] == []
    assert (folder / "summary.md").read_text() == search_texts(folder, titles())["summary.md"]


def test_the_recipes_are_what_the_search_chose() -> None:
    folder = REPORTS / "tuning"
    for method, search in json.loads((folder / "trials.json").read_text())["methods"].items():
        trial = search["trials"][search["chosen"]]
        tried = RunSettings.model_validate(
            RunResult.load(folder / "results" / trial["result"]).config
        )
        recipe, _ = config.resolve(method, "mini")
        assert (recipe.method, recipe.train) == (tried.method, tried.train), method


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_hold_the_committed_tables_and_findings(page: Path) -> None:
    assert page.read_text() == embedded(page), "run `make report`"


def test_both_pages_of_the_embedded_benchmark_show_its_table() -> None:
    line = "<!-- table: reports/mini/short/summary.md -->"
    assert line in (ROOT / "README.md").read_text()
    assert line.replace("reports/mini/", "") in (REPORTS / "mini/README.md").read_text()


def test_the_committed_picture_is_that_of_the_results() -> None:
    """It says the same; the outlines of letters depend on the version of matplotlib."""
    (group,) = comparable_groups(find_results(MINI))
    drawn = next(figure for figure in draw_figures(group) if figure.name == "tradeoff")
    committed = (REPORTS / "mini/figures/tradeoff.svg").read_text()
    texts = [svg_texts(svg) for svg in (committed, file_bytes(drawn.figure, "svg").decode())]
    assert texts[0] == texts[1], "run `make report`"
    chosen = [one for one in group.results if one.method.name in default_choice(group.results)]
    assert chosen
    for result in titled(chosen):
        assert any(text.startswith(result.method.title) for text in texts[0])
