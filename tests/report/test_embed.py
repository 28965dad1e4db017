"""What is generated inside hand-written pages."""

from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.report.embed import embedded


def test_a_table_is_renewed_and_its_headings_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("# Title\n\n| a |\n|---|\n| 2 |\n")
    page = tmp_path / "page.md"
    begin, end = "Before.\n<!-- table: table.md -->\n", "<!-- end of table -->\nAfter.\n"
    page.write_text(f"{begin}| 1 |\n{end}")
    assert embedded(page) == f"{begin}\n| a |\n|---|\n| 2 |\n\n{end}"


def test_studies_are_listed_with_what_they_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/b.md").write_text("# Does it?\n\n**In short:** Yes, by 3.0.\n\nMore.\n")
    (tmp_path / "docs/a.md").write_text("# Why?\n\n**In short:** Because.\n")
    (tmp_path / "docs/index.md").write_text("# Index\n")
    page = tmp_path / "README.md"
    page.write_text("<!-- studies: docs -->\n<!-- end of studies -->\n")
    whole = embedded(page)
    assert whole.splitlines()[1:-1] == [
        "",
        "- [Why?](docs/a.md) Because.",
        "- [Does it?](docs/b.md) Yes, by 3.0.",
        "",
    ]
    page.write_text(whole)
    assert embedded(page) == whole


def test_a_table_that_is_missing_is_one_clear_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: table.md -->\n<!-- end of table -->\n")
    with pytest.raises(ClbenchError, match=r"cannot read .*table\.md"):
        embedded(page)
