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
FOLDERS = sorted(path for path in (ROOT / "reports/studies").iterdir() if path.is_dir())


def texts(picture: Path) -> list[str]:
    """What a figure says; the outlines of letters depend on the version of matplotlib."""
    return re.findall(r"<!-- (.*?) -->", picture.read_text())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_page_is_that_of_its_results(folder: Path, tmp_path: Path) -> None:
    study = find_study(folder.name)
    assert "To be written" not in study.file.answer + study.file.finding
    page = tmp_path / f"{folder.name}.md"
    write_study(read_study(study, folder), tmp_path, page)
    assert (PAGES / page.name).read_text() == page.read_text(), "run `make studies`"
    assert texts(PAGES / f"{folder.name}.svg") == texts(tmp_path / f"{folder.name}.svg")


def test_all_pages_have_results() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {"index"}
    assert pages == {folder.name for folder in FOLDERS}
