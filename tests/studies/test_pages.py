"""The committed pages of studies say what the committed results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from clbench.studies.make import read_study
from clbench.studies.study import find_study
from clbench.studies.write import write_study
from tests.report.drawn_text import svg_texts

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/studies"
NAMES = sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_that_of_its_results(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    assert "To be written" not in study.file.answer + study.file.finding
    page = tmp_path / f"{name}.md"
    write_study(read_study(study, ROOT / "reports/studies" / name), tmp_path, page)
    assert (PAGES / page.name).read_text() == page.read_text(), "run `make studies`"
    committed, drawn = ((folder / f"{name}.svg").read_text() for folder in (PAGES, tmp_path))
    assert svg_texts(committed) == svg_texts(drawn)
