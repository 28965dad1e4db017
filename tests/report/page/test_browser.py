"""The page in a real browser: sorting, filtering, matrices, copying, dark mode, phone width.

The browser sees a page with three benchmarks, one of hostile names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench.report.figures.draw import draw_all
from clbench.report.page.build import write_page
from tests.report.page.browser import PHONE, Browser
from tests.report.studies import HOSTILE, hostile_study, incremental_study, mtil_study

Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Select = pytest.importorskip("selenium.webdriver.support.ui").Select


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [*mtil_study(seeds=(0, 1)), *incremental_study(5, seeds=(0,)), *hostile_study()]
    figures = defaultdict(list, draw_all(hostile_study()))  # the others would take seconds
    folder = tmp_path_factory.mktemp("page")
    return write_page(runs, folder, figures=figures, deviation=lambda run: None)


@pytest.fixture
def browser(driver: Any, path: Path) -> Iterator[Browser]:
    """The page freshly opened; afterwards the console must hold no complaint."""
    driver.get_log("browser")
    browser = Browser(driver, path)
    browser.open()
    yield browser
    assert [entry["message"] for entry in driver.get_log("browser")] == []


def groups(browser: Browser) -> list[str]:
    return [group.get_attribute("data-benchmark") for group in browser.all("section.group")]


def mtil(browser: Browser) -> int:
    return groups(browser).index("mtil")


def test_it_asks_the_network_for_nothing(browser: Browser) -> None:
    browser.performance()
    browser.open()
    browser.open_details()
    urls = {e["request"]["url"] for e in browser.events("Network.requestWillBeSent")}
    assert {url for url in urls if not url.startswith("data:")} == {browser.path.as_uri()}


def test_a_request_would_be_refused(driver: Any, path: Path) -> None:
    browser = Browser(driver, path)
    browser.open()
    browser.performance()
    browser.js("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x'}))")
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert any("Content Security Policy" in message for message in messages)
    reasons = [event.get("blockedReason") for event in browser.events("Network.loadingFailed")]
    assert reasons == ["csp"]


def test_hostile_names_do_nothing_but_show(browser: Browser) -> None:
    assert browser.js("return window.hacked") is None
    assert HOSTILE in browser.one('section[data-benchmark*="onerror"] h2').text
    assert browser.all("img") == []


def test_columns_sort_by_value_up_down_and_back(browser: Browser) -> None:
    group = mtil(browser)
    index, button = browser.heading(group, "Training")
    start = browser.column(group, index)
    button.click()
    heading = browser.js("return arguments[0].closest('th')", button)
    assert heading.get_attribute("aria-sort") == "descending"
    down = browser.column(group, index)
    assert down == ["2.7 h", "36.7 min", "35.8 min", "35.0 min", "23.3 min", "0.0 s"]
    assert not any(title.is_displayed() for title in browser.all("#group-1 ~ * tr.title"))
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert browser.column(group, index) == down[::-1]
    button.click()
    assert heading.get_attribute("aria-sort") == "none"
    assert browser.column(group, index) == start


def test_every_column_sorts_and_only_one_says_so(browser: Browser) -> None:
    code = """
    const table = document.querySelectorAll('section.group')[arguments[0]].querySelector('table');
    return [...table.querySelectorAll('thead button')].map(button => {
      button.click();
      const rows = table.querySelectorAll('tbody tr:not(.title)').length;
      return [rows, [...table.querySelectorAll('thead th')].map(th => th.ariaSort !== 'none')];
    });
    """
    found = browser.js(code, mtil(browser))
    assert len(found) > 10
    for index, (rows, states) in enumerate(found):
        assert rows == 6
        assert [i for i, sorted_by in enumerate(states) if sorted_by] == [index]


def test_missing_values_come_last_in_both_directions(browser: Browser) -> None:
    group = next(i for i, name in enumerate(groups(browser)) if "onerror" in name)
    index, button = browser.heading(group, "Trainable")
    for _ in range(2):
        button.click()
        assert browser.column(group, index)[-1] == ""


def test_blocks_of_the_per_task_table_stay_together(browser: Browser) -> None:
    section = browser.all("section.group")[mtil(browser)]
    details = section.find_element("css selector", "details.table")
    details.find_element("css selector", "summary").click()
    titles = details.find_elements("css selector", "tr.title")
    assert [title.text for title in titles] == ["Transfer", "Avg", "Last"]
    mean = details.find_elements("css selector", "thead button")[-1]
    mean.click()
    for body in details.find_elements("css selector", "tbody"):
        cells = [
            row.find_elements("css selector", "td")[-1]
            for row in body.find_elements("css selector", "tr:not(.title)")
        ]
        numbers = [float(cell.text) for cell in cells]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 6
    assert all(title.is_displayed() for title in titles)


def test_the_filter_shows_one_benchmark(browser: Browser) -> None:
    choice = Select(browser.one("#benchmark"))
    assert choice.options[0].text == "all (3)"
    for name in ("mtil", "cifar100-5step"):
        choice.select_by_value(name)
        shown = [g for g in browser.all("section.group") if g.is_displayed()]
        assert [group.get_attribute("data-benchmark") for group in shown] == [name]
    choice.select_by_value("")
    assert all(group.is_displayed() for group in browser.all("section.group"))


def test_a_method_opens_its_matrices_by_keyboard(browser: Browser) -> None:
    section = browser.all("section.group")[mtil(browser)]
    button = section.find_element("css selector", 'button.matrix[data-label="nusa"]')
    browser.js("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    dialog = browser.one("#matrices")
    assert dialog.is_displayed()
    assert browser.one("#matrices-title").text == "nusa"
    views = Select(browser.one("#matrices-view"))
    assert [option.text for option in views.options] == ["mean of 2 seeds", "seed 0", "seed 1"]
    views.select_by_visible_text("seed 1")
    run = next(r for r in mtil_study(seeds=(1,)) if r.method.name == "nusa")
    rows = dialog.find_elements("css selector", "tbody tr")
    assert len(rows) == 12
    shown = [cell.text for cell in rows[3].find_elements("css selector", "td")]
    assert shown == [f"{100 * value:.1f}" for value in run.matrix.values[3]]
    assert rows[3].find_element("css selector", ".own").text == shown[2]
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.driver.switch_to.active_element == button, "focus returns"


def test_a_hostile_method_opens_its_matrices_too(browser: Browser) -> None:
    button = next(b for b in browser.all("button.matrix") if b.text == HOSTILE)
    button.click()
    assert browser.one("#matrices-title").text == HOSTILE
    assert len(browser.all("#matrices tbody td")) == 12
    browser.one("#matrices-close").click()
    assert not browser.one("#matrices").is_displayed()


@pytest.mark.parametrize("allowed", [True, False], ids=["clipboard", "without permission"])
def test_latex_is_copied(browser: Browser, allowed: bool) -> None:
    setting = "granted" if allowed else "denied"
    for name in ("clipboard-write", "clipboard-read"):
        browser.driver.execute_cdp_cmd(
            "Browser.setPermission",
            {"permission": {"name": name}, "setting": setting if "write" in name else "granted"},
        )
    section = browser.all("section.group")[mtil(browser)]
    section.find_element("css selector", 'button.copy[data-format="LaTeX"]').click()
    wait = """
    const look = () => document.querySelector('.status').textContent
      ? arguments[0]() : setTimeout(look, 10);
    look();
    """
    browser.driver.execute_async_script(wait)
    assert browser.one(".status").text == "LaTeX copied"
    copied = browser.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], error => arguments[0](String(error)))"
    )
    assert copied.startswith("% mtil v1")
    assert "\\begin{tabular}" in copied
    assert copied == section.find_element("css selector", "textarea.source").get_attribute("value")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser: Browser, scheme: str) -> None:
    browser.open(scheme=scheme)
    code = """
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const page = light(numbers(getComputedStyle(document.body).backgroundColor));
    const contrast = e => {
      const text = light(numbers(getComputedStyle(e).color));
      return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
    };
    return [page, ...[...document.querySelectorAll(arguments[0])].map(contrast)];
    """
    selector = "h1, h2, .note, td, thead button, button.matrix, .warning, figcaption, figure svg"
    page, *contrasts = browser.js(code, selector)
    assert page > 0.9 if scheme == "light" else page < 0.05
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5, "WCAG's minimum"


def test_figures_follow_the_page_in_dark_mode(browser: Browser) -> None:
    browser.open(scheme="dark")
    code = "return getComputedStyle(arguments[0]).fill"
    text = browser.one("figure svg g[id*='text_'] g")
    assert browser.js(code, text) == browser.js("return getComputedStyle(document.body).color")


def test_a_phone_never_scrolls_sideways(browser: Browser) -> None:
    browser.open(screen=PHONE)
    browser.open_details()
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    assert browser.js(widths) == [390, 390]
    browser.one("button.matrix").click()
    assert browser.js(widths) == [390, 390]
    box = browser.one("#matrices").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    browser.one("#matrices-close").click()


def test_everything_can_be_reached_by_keyboard(browser: Browser) -> None:
    clickable = browser.js(
        "return [...document.querySelectorAll('[onclick], th, td, .matrix, .copy, .sort')]"
        ".filter(e => getComputedStyle(e).cursor === 'pointer' && e.offsetParent)"
        ".filter(e => !['BUTTON', 'SELECT', 'SUMMARY', 'A'].includes(e.tagName)).length"
    )
    assert clickable == 0
    browser.one("body").send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the results"


def test_without_scripts_everything_but_the_controls_shows(browser: Browser) -> None:
    switch = "Emulation.setScriptExecutionDisabled"
    browser.driver.execute_cdp_cmd(switch, {"value": True})
    try:
        browser.open()
        assert not browser.one("#benchmark").is_displayed()
        methods = [cell.text for cell in browser.all("section.group th[scope=row]")]
        assert "nusa" in methods
        assert browser.one("figure svg").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd(switch, {"value": False})
