"""The methods' pages hold the tables that the signatures give."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clbench import registry
from clbench.cli.pages import main, renewed
from clbench.core.errors import ClbenchError

FOLDER = Path(__file__).parents[2] / "docs/methods"
PAGES = sorted(FOLDER.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_table_of_a_page_is_up_to_date(page: Path) -> None:
    assert renewed(page) == page.read_text(), "run: make docs"


def test_every_method_has_a_page() -> None:
    assert [page.stem for page in PAGES] == registry.method_names()


def test_every_hyperparameter_is_explained_in_the_page() -> None:
    for page in PAGES:
        for name in registry.method(page.stem).schema():
            assert f"| `{name}` |" in page.read_text()


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
