"""The committed pages of studies say what the committed results say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clbench.studies.make import read_study
from clbench.studies.study import find_study
from clbench.studies.write import write_study

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/studies"
NAMES = sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


def texts(picture: Path) -> list[str]:
    """What a figure says; the outlines of letters depend on the version of matplotlib."""
    return re.findall(r"<!-- (.*?) -->", picture.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_that_of_its_results(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    assert "To be written" not in study.file.answer + study.file.finding
    page = tmp_path / f"{name}.md"
    write_study(read_study(study, ROOT / "reports/studies" / name), tmp_path, page)
    assert (PAGES / page.name).read_text() == page.read_text(), "run `make studies`"
    assert texts(PAGES / f"{name}.svg") == texts(tmp_path / f"{name}.svg")
