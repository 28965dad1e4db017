"""A page in Chromium, driven the way a person would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


class Browser:
    """A page in Chromium, driven the way a person would: keys and clicks."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        self.path = path

    def open(self, *, screen: dict[str, Any] = DESKTOP, scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.get("about:blank")
        self.driver.get(self.path.as_uri())
        # On a busy machine `get` may return for the blank page.
        loaded = "return location.protocol === 'file:' && document.readyState === 'complete'"
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60, poll_frequency=0.02).until(lambda _: self.js(loaded))

    def open_details(self) -> None:
        self.js("for (const part of document.querySelectorAll('main details')) part.open = true")

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def column(self, group: int, index: int) -> list[str]:
        """The texts of a column of a group's summary table, as shown."""
        code = (
            "return [...document.querySelectorAll('section.group')[arguments[0]]"
            ".querySelector('table.data').querySelectorAll('tbody tr:not(.title)')]"
            ".map(row => row.cells[arguments[1]].innerText.trim())"
        )
        return list(self.js(code, group, index))

    def heading(self, group: int, title: str) -> tuple[int, Any]:
        """Index and button of a column of a group's summary table."""
        table = self.all("section.group")[group].find_element("css selector", "table.data")
        buttons = table.find_elements("css selector", "thead button")
        titles = [button.text for button in buttons]
        return titles.index(title), buttons[titles.index(title)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        logged = [json.loads(entry["message"])["message"] for entry in self.performance()]
        return [event["params"] for event in logged if event["method"] == kind]

    def performance(self) -> list[dict[str, Any]]:
        return list(self.driver.get_log("performance"))
