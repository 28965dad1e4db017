"""The page of 33 methods in a real browser: choosing, searching, figures, whole tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench.core.results.result import RunResult
from clbench.report.figures.chosen import default_choice
from clbench.report.figures.draw import draw_figure
from clbench.report.page.build import write_page
from tests.report.page.browser import Browser
from tests.report.studies import wide_study

SIZES = {1400: False, 500: True}
SCHEMES = ("light", "dark")


def screen(width: int) -> dict[str, Any]:
    return {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": SIZES[width]}


@pytest.fixture(scope="module")
def runs() -> list[RunResult]:
    return wide_study()


@pytest.fixture(scope="module")
def path(runs: list[RunResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = default_choice(runs)
    some = {"tradeoff": chosen, "effective-rank": chosen, "matrices": {"nusa"}}
    drawn = [draw_figure(name, runs, choice) for name, choice in some.items()]
    figures = defaultdict(list, {"mtil-I-ViT-B-16": [figure for figure in drawn if figure]})
    return write_page(runs, tmp_path_factory.mktemp("wide"), figures=figures)


@pytest.fixture
def browser(driver: Any, path: Path) -> Iterator[Browser]:
    driver.get_log("browser")
    browser = Browser(driver, path)
    browser.open(screen=screen(1400))
    yield browser
    assert [entry["message"] for entry in driver.get_log("browser")] == []


def choose(browser: Browser, *names: str) -> None:
    """None of the methods but these."""
    browser.js("document.querySelector('.choice').open = true")
    browser.one("[data-choose=none]").click()
    for name in names:
        browser.one(f".choice .one[value={name}]").click()


def shown_rows(browser: Browser, selector: str = "tr[data-row]") -> list[str]:
    table = browser.one("section[data-number] table.data")
    return [
        row.find_element("css selector", "th").text
        for row in table.find_elements("css selector", selector)
        if row.is_displayed()
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", SIZES)
def test_nothing_is_cut_and_the_page_never_scrolls_sideways(
    browser: Browser, width: int, scheme: str
) -> None:
    browser.open(screen=screen(width), scheme=scheme)
    browser.open_details()
    sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.js(sideways) == 0
    cut = """
    const width = document.documentElement.clientWidth;
    return [...document.querySelectorAll('h1, h2, h3, p, label, button, table, figure, canvas')]
      .filter(e => e.offsetParent && !e.closest('.scroll, dialog'))
      .filter(e => {
        const { left, right } = e.getBoundingClientRect();
        return left < -0.5 || right > width + 0.5;
      })
      .map(e => e.outerHTML.slice(0, 80));
    """
    assert browser.js(cut) == []
    # What is wider than its box can be scrolled to, to the last column.
    reach = """
    return [...document.querySelectorAll('.scroll:has(tr[data-row])')].map(box => {
      box.scrollLeft = 1e6;
      const last = box.querySelector('thead th:last-child').getBoundingClientRect();
      const first = box.querySelector('tr[data-row] th').getBoundingClientRect();
      const frame = box.getBoundingClientRect();
      return [last.right - frame.right, first.left - frame.left];
    });
    """
    assert len(browser.js(reach)) == 2
    for last, first in browser.js(reach):
        assert last <= 1
        assert abs(first) <= 1, "the names of the methods stay"


def test_titles_of_columns_stay_in_sight(browser: Browser) -> None:
    code = """
    const box = document.querySelector('.scroll:has(> table.data)');
    box.scrollTop = 200;
    const head = box.querySelector('thead th').getBoundingClientRect();
    return [box.scrollTop, head.top - box.getBoundingClientRect().top];
    """
    scrolled, distance = browser.js(code)
    assert scrolled == 200
    assert abs(distance) <= 1


def test_the_first_look_shows_baselines_and_the_best_of_each_family(
    browser: Browser, runs: list[RunResult]
) -> None:
    chosen = default_choice(runs)
    assert browser.one("#count").text == f"{len(chosen)} of 33"
    assert {"zeroshot", "finetune", "joint"} < chosen
    titles = {run.method.title for run in runs if run.method.name in chosen}
    assert {
        label.removesuffix(" (upper bound)") for label in shown_rows(browser, "tr.on")
    } == titles
    assert len(shown_rows(browser)) == 33
    families = [f.get_attribute("data-family") for f in browser.all(".choice fieldset")]
    assert families[0] == "Baselines"
    assert len(families) == 9


def test_figures_follow_the_choice(browser: Browser) -> None:
    choose(browser, "nusa", "gift")
    code = """
    const section = document.querySelector('section[data-number]');
    const colours = kind => [...section.querySelectorAll('.series.' + kind)].map(series => {
      const { stroke, fill } = getComputedStyle(series.querySelector('use, path:not(defs path)'));
      return [series.classList.contains('on'), stroke + fill];
    });
    return ['line', 'mark'].map(colours);
    """
    for found in browser.js(code):
        strong = [colour for on, colour in found if on]
        faint = {colour for on, colour in found if not on}
        assert len(set(strong)) == 2
        assert not faint & set(strong)
    names = [text.text for text in browser.all("svg text.placed")]
    assert sorted(names) == ["GIFT", "NuSA-CL"]
    assert [key.text for key in browser.all(".keys .key")] == ["GIFT", "NuSA-CL"]
    assert [label.text for label in browser.all(".map span")] == ["GIFT", "NuSA-CL"]


def test_names_of_markers_do_not_collide(browser: Browser) -> None:
    code = """
    const texts = [...document.querySelectorAll('svg text.placed')];
    const boxes = texts.map(text => text.getBoundingClientRect());
    const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
      && a.top < b.bottom - 2 && b.top < a.bottom - 2;
    const pairs = boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => over(a, b)));
    return [boxes.length, pairs.length];
    """
    assert browser.js(code) == [len(shown_rows(browser, "tr.on")), 0]
    browser.js("document.querySelector('.choice').open = true")
    browser.one("[data-choose=all]").click()
    assert browser.js(code) == [33, 0]


def test_glyphs_of_the_figures_survive(browser: Browser) -> None:
    missing = """
    return [...document.querySelectorAll('figure svg use')]
      .filter(use => !document.getElementById(use.href.baseVal.slice(1))).length;
    """
    assert browser.js(missing) == 0


def test_tables_can_be_narrowed_to_the_choice(browser: Browser) -> None:
    choose(browser, "nusa", "zscl")
    browser.one("#only").click()
    assert shown_rows(browser) == ["NuSA-CL", "ZSCL"]
    browser.one("#only").click()
    assert len(shown_rows(browser)) == 33


def test_methods_are_found_by_title_name_or_family(browser: Browser) -> None:
    browser.js("document.querySelector('.choice').open = true")
    search = browser.one("#search")

    def found(text: str) -> list[str]:
        search.clear()
        search.send_keys(text)
        return [e.text for e in browser.all(".choice .member") if e.is_displayed()]

    assert found("wise_ft") == ["WiSE-FT"]
    assert found("replay") == ["Experience replay", "iCaRL", "SPU"]
    assert found("nothing like it") == []
    assert found("nusa") == ["NuSA-CL"]
    search.send_keys("\n")
    assert "NuSA-CL" in shown_rows(browser, "tr.on")
    search.send_keys("\ue00c")  # Escape
    assert not browser.one("#search").is_displayed()


def test_a_family_is_chosen_at_once(browser: Browser) -> None:
    choose(browser)
    browser.one("fieldset[data-family=Merging] .whole").click()
    assert shown_rows(browser, "tr.on") == ["ConDU", "MagMax"]


def test_small_matrices_open_their_numbers(browser: Browser) -> None:
    choose(browser, "nusa")
    browser.js("document.querySelector('.choice').open = false")
    browser.one(".map").click()
    assert browser.one("#matrices-title").text == "NuSA-CL"
    assert len(browser.all("#matrices tbody tr")) == 12
    browser.one("#matrices-close").click()
