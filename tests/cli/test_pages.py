"""The methods' pages hold the tables that the signatures give."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clbench import registry
from clbench.cli.pages import main, renewed
from clbench.core.errors import ClbenchError

FOLDER = Path(__file__).parents[2] / "docs/methods"
INDEX = FOLDER / "index.md"
PAGES = sorted(set(FOLDER.glob("*.md")) - {INDEX})


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=lambda page: page.stem)
def test_the_table_of_a_page_is_up_to_date(page: Path) -> None:
    assert renewed(page) == page.read_text(), "run: make docs"


def test_every_method_has_a_page() -> None:
    assert [page.stem for page in PAGES] == registry.method_names()


def test_every_hyperparameter_is_explained_in_the_page() -> None:
    for page in PAGES:
        for name in registry.method(page.stem).schema():
            assert f"| `{name}` |" in page.read_text()


def test_every_page_says_what_the_index_shows() -> None:
    for page in PAGES:
        text = page.read_text()
        assert "\n## What is stored\n\n" in text, page
        assert "\n## Parity\n\n" in text, page
        assert f"| [`{page.stem}`]({page.name}) | " in INDEX.read_text(), page


def test_the_index_takes_first_paragraphs_and_the_first_published_row(page: Path) -> None:
    page.write_text(
        "# LoRA (`lora`)\n\nUpdates of\nlow rank.\n\nPaper: elsewhere.\n\n## What is stored\n\n"
        "$|x|$ only.\n\nMore.\n\n## Task identity\n\nGuessed. By a vote.\n\n"
        "## Published numbers\n\n| benchmark | Transfer | Avg | Last |\n"
        "|---|---|---|---|\n| MTIL | 1.0 | | |\n"
        "| MTIL, order II | 1.0 | 2.0 | 3.0 |\n"
    )
    index = page.with_name("index.md")
    index.write_text("<!-- methods -->\n<!-- end of methods -->\n")
    row = renewed(index).splitlines()[4]
    cells = [r"$\|x\|$ only.", "", "Guessed", "", "1.0 / 2.0 / 3.0 (MTIL, order II)"]
    assert row == f"| [`lora`](lora.md) | Updates of low rank. | {' | '.join(cells)} |"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page of a method, with an outdated table and text around it."""
    page = tmp_path / "lora.md"
    page.write_text(
        "# LoRA\n\n<!-- hyper-parameters -->\n| `old` |\n"
        "<!-- end of hyper-parameters -->\n\nText.\n"
    )
    return page


def test_the_command_renews_the_table_and_nothing_else(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pages", str(page)])
    main()
    text = page.read_text()
    assert text.startswith("# LoRA\n\n<!-- hyper-parameters -->\n\n| name | type | default |")
    assert "| `rank` | int >= 1 | `128` | Rank of the update. |\n" in text
    assert text.endswith(" |\n\n<!-- end of hyper-parameters -->\n\nText.\n")
    assert "old" not in text
    assert renewed(page) == text, "a second time changes nothing"


def test_a_page_without_a_place_or_a_method_is_refused(page: Path) -> None:
    with pytest.raises(ClbenchError, match="unknown method 'lorra': did you mean 'lora'"):
        renewed(page.rename(page.with_name("lorra.md")))
    empty = page.with_name("nusa.md")
    empty.write_text("# NuSA\n")
    with pytest.raises(ClbenchError, match="needs one pair of lines '<!-- hyper-parameters -->'"):
        renewed(empty)
    with pytest.raises(ClbenchError, match=r"cannot read .*gnsp\.md"):
        renewed(page.with_name("gnsp.md"))
