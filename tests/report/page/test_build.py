"""The page as text: self-contained, escaped, the numbers of the other formats, the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.figures.draw import DrawnFigure
from clbench.report.formats.cells import Cell, Grid
from clbench.report.page.build import page_html, write_page
from clbench.report.page.runs import script_json
from clbench.report.page.tables import page_table, sort_value
from clbench.report.tables.documents import TableDocument
from clbench.report.write import write_report
from tests.made_up import VALUES
from tests.report.studies import HOSTILE, UGLY_TASKS, hostile_study, mtil_study

MakeResult = Callable[..., RunResult]
READ = {
    "dd",
    "h2",
    "h3",
    "option",
    "p",
    "pre",
    "script",
    "style",
    "summary",
    "td",
    "textarea",
    "th",
}
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use"}


class Page(HTMLParser):
    """Elements, attributes, ids, and the texts of cells and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in READ & set(self.open):
            self.texts[tag][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def hostile() -> str:
    return page_html(hostile_study())


def bare(results: list[RunResult], **options: Any) -> Page:
    """The page without figures, which take seconds."""
    figures: defaultdict[str, list[DrawnFigure]] = defaultdict(list)
    return Page(page_html(results, figures=figures, **options))


def incremental(make_result: MakeResult) -> RunResult:
    values = [[None] * 3, [1.0, None, None], [0.6, 0.8, None], [0.5, 0.7, 0.9]]
    return make_result(
        "nusa", 0, values, setting=Setting.CLASS_INCREMENTAL, benchmark="mini-cil-3step"
    )


def test_it_is_well_formed_and_ids_are_unique(hostile: str) -> None:
    page = Page(hostile)
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 20
    named = [value for name in ("aria-labelledby", "for") for value in page.values(name)]
    links = [v[1:] for v in page.values("href") + page.values("xlink:href") if v[:1] == "#"]
    assert set(named + links) <= set(ids)


def test_it_loads_nothing_and_runs_only_its_own_script(hostile: str) -> None:
    page = Page(hostile)
    addresses = [v for n in ("src", "href", "xlink:href", "action") for v in page.values(n)]
    assert [v for v in addresses if not v.startswith(("#", "data:"))] == []
    assert "@import" not in page.texts["style"][0]
    (policy,) = [v for v in page.values("content") if "default-src" in v]
    digest = hashlib.sha256(page.texts["script"][1].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}';" in policy
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert [n for n in {n for _, n, _ in page.attributes} if n.startswith("on")] == []
    assert f"folder:/data/{HOSTILE}" in page.texts["h2"][0]
    assert any(HOSTILE in text for text in page.texts["th"])
    assert any("]]>--><script>" in text for text in page.texts["pre"])
    assert "javascript:alert(1)" in page.texts["dd"]
    data = json.loads(page.texts["script"][0])
    assert data["groups"][0]["tasks"] == list(UGLY_TASKS)
    assert HOSTILE in data["groups"][0]["methods"]


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "a\u2028b & 'c'"])
def test_data_cannot_leave_their_script_element(value: str) -> None:
    text = script_json({value: [value]})
    assert json.loads(text) == {value: [value]}
    assert set(text) & set("<>&\u2028") == set()


def test_numbers_are_those_of_the_other_formats(
    study: list[RunResult], make_result: MakeResult, tmp_path: Path
) -> None:
    study = [*study, incremental(make_result)]
    write_report(study, tmp_path)
    page = bare(study)
    shown = {" ".join(text.split()) for text in page.texts["td"]}
    for path in tmp_path.rglob("summary.md"):
        rows = [line for line in path.read_text().splitlines() if line.startswith("| ")]
        numbers = {n for row in rows for n in re.findall(r"-?\d+\.\d(?: ± \d+\.\d)?(?= )", row)}
        assert len(numbers) > 5
        assert {n for n in numbers if not any(n in text for text in shown)} == set()
    sources = [text.removeprefix("\n") for text in page.texts["textarea"]]  # as browsers do
    for path in tmp_path.rglob("*.tex"):
        assert path.read_text() in sources


def test_matrices_are_those_of_the_runs(study: list[RunResult]) -> None:
    data = json.loads(bare(study).texts["script"][0])
    (group,) = data["groups"]
    views = group["methods"]["nusa"]
    assert [view["name"] for view in views] == ["mean of 2 seeds", "seed 0", "seed 1"]
    assert views[1]["rows"] == [[round(100 * v, 1) for v in row] for row in VALUES]
    assert views[0]["rows"][1] == [77.5, 37.5, 47.5]
    assert (group["low"], group["high"]) == (20, 100)
    assert len(data["palette"]["background"]) == len(data["palette"]["text"]) == 64


def test_provenance_of_every_run_is_there(study: list[RunResult]) -> None:
    origin = {"device": "H100", "git": {"commit": "c0ffee", "dirty": True}, "packages": {"a": "1"}}
    run = study[0].model_copy(update={"provenance": origin, "config_hash": "feedbeef"})
    page = bare([run, *study[1:]])
    heads = [" ".join(text.split()) for text in page.texts["summary"]]
    assert "nusa, seed 0 feedbeef" in heads
    assert sum(", seed " in head for head in heads) == len(study)
    assert {"H100", "c0ffee, with changes", "feedbeef", "f1"} <= set(page.texts["dd"])
    assert any("packages:\n  a: '1'" in text for text in page.texts["pre"])


def test_groups_that_may_not_be_compared_say_why(
    study: list[RunResult], make_result: MakeResult
) -> None:
    page = bare([*study, make_result(fingerprint="f2"), incremental(make_result)])
    assert page.texts["option"][:3] == ["all (2)", "mini", "mini-cil-3step"]
    reasons = [text for text in page.texts["p"] if text.startswith("Not to be compared")]
    assert any("backbone fingerprint f2, not f1" in text for text in reasons)
    assert len(reasons) == 2
    assert page.values("data-benchmark") == ["mini", "mini", "mini-cil-3step"]


def test_published_numbers_have_a_section_if_asked_for_and_known(study: list[RunResult]) -> None:
    title = "Published and measured"
    published = mtil_study(seeds=(0,), methods=("nusa",))
    assert title in bare(published, deviation=lambda run: None).texts["h3"]
    assert title not in bare(published).texts["h3"]
    assert title not in bare(study, deviation=lambda run: None).texts["h3"]


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes_in_any_order(
    study: list[RunResult], tmp_path: Path
) -> None:
    first = write_page(study[:3], tmp_path / "a")
    second = write_page(study[2::-1], tmp_path / "b")
    assert first.name == "index.html"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("84.6 ± 0.3", 84.6),
        ("-8.9", -8.9),
        ("+12.5", 12.5),
        ("0 B", 0),
        ("5.0 kB", 5000),
        ("57.3 k", 57_300),
        ("1.5 GB", 1.5e9),
        ("42.0 s", 42),
        ("2.7 h", 9720),
        ("512", 512),
        ("", None),
        ("within 3 points", None),
        ("3 seeds", None),
        ("1.0 ± 0.1 furlongs", None),
    ],
)
def test_printed_values_sort_as_what_they_stand_for(text: str, value: float | None) -> None:
    assert sort_value(text) == value


def test_a_title_in_the_first_column_becomes_a_block() -> None:
    rows = (
        (Cell("Transfer"), Cell("a"), Cell("1.0")),
        (Cell(""), Cell("b"), Cell("2.0")),
        (Cell("Last"), Cell("a"), Cell("3.0")),
    )
    grid = Grid(("", "Method", "x"), rows, (False, False, True), frozenset({2}))
    table = page_table(TableDocument("per-task", "t", grid, None))  # type: ignore[arg-type]
    assert table.header == ("Method", "x")
    assert [(block.title, len(block.rows)) for block in table.blocks] == [
        ("Transfer", 2),
        ("Last", 1),
    ]
    assert not table.mixed


def test_the_command_writes_the_page_and_the_figures(
    study: list[RunResult], tmp_path: Path
) -> None:
    study[0].save(tmp_path / "runs" / "result.json")
    runs = str(tmp_path / "runs")
    refused = CliRunner().invoke(app, ["report", runs, "--html"])
    assert refused.exit_code == 2
    assert "name a folder with --out" in refused.output
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["report", runs, "--out", str(out), "--html", "--figures"])
    assert done.exit_code == 0, done.output
    assert (out / "index.html").is_file()
    assert (out / "figures" / "tradeoff.pdf").is_file()
    assert (out / "summary.md").is_file()
    plain = CliRunner().invoke(app, ["report", runs, "--out", str(tmp_path / "plain")])
    assert plain.exit_code == 0
    assert not (tmp_path / "plain" / "figures").exists()
    assert not (tmp_path / "plain" / "index.html").exists()
