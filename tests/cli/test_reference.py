"""The page of all settings says what the code says."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clbench import registry
from clbench.cli.app import app
from clbench.cli.pages import main, renewed
from clbench.cli.reference import options_section, run_sections, settings_page
from clbench.cli.show import listing
from clbench.core.errors import ClbenchError
from clbench.core.hyperparameters import meaning
from clbench.core.settings import RunSettings

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def dotted(tree: dict[str, object], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in tree.items():
        inner = dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        keys |= {f"{prefix}{key}"} if inner is None else inner
    return keys


def test_the_page_is_up_to_date() -> None:
    assert renewed(PAGE) == PAGE.read_text(), "run: make docs"


def test_every_setting_of_a_run_is_listed_once_with_its_meaning() -> None:
    keys = [key for section in run_sections() for key in section.dotted()]
    expected = dotted(RunSettings().model_dump(mode="json"))
    assert sorted(keys) == sorted(
        expected - {"benchmark.name", "method.name", "method.decides_by_batch"}
    )
    for section in run_sections():
        for name, parameter in section.schema.items():
            assert meaning(parameter), f"{name}: add it to the docstring of its class"


def test_every_option_of_a_benchmark_is_listed_with_its_meaning() -> None:
    for name in (*registry.benchmark_names(), "folder:/path"):
        recipe = registry.benchmark(name)
        schema = options_section(recipe).schema
        assert schema.keys() == recipe.option_schema().keys() - (
            {"path"} if name.startswith("folder:") else set()
        )
        assert all(meaning(parameter) for parameter in schema.values()), name


def test_the_page_names_every_benchmark_method_and_hyper_parameter() -> None:
    text = settings_page()
    for name in registry.benchmark_names():
        assert f"| `{name}` | " in text
    for name, cls in registry.methods().items():
        assert f"### `{name}`\n" in text
        for parameter in cls.schema():
            assert f"| `method.{parameter}` |" in text


def test_defaults_and_bounds_are_those_of_the_code() -> None:
    text = settings_page()
    lr = repr(RunSettings().train.lr)
    assert f"| `train.lr` | float >= 0 or dict[str, float >= 0] | `{lr}` | " in text
    assert "| `seed` | int >= 0, < 4294967296 | `0` | " in text
    assert "| `logger` | tuple['csv' or 'tensorboard' or 'wandb', ...] | " in text
    assert "| `mini-5shot` | `benchmark.shots=5`, " in text
    assert "``" not in text


def test_the_command_renews_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "settings.md"
    page.write_text("# S\n\n<!-- settings -->\noutdated\n<!-- end of settings -->\n\nText.\n")
    monkeypatch.setattr(sys, "argv", ["pages", str(page)])
    main()
    text = page.read_text()
    assert text.startswith("# S\n\n<!-- settings -->\n\n## The run\n")
    assert text.endswith("\n<!-- end of settings -->\n\nText.\n")
    assert "outdated" not in text
    page.write_text("# S\n")
    with pytest.raises(ClbenchError, match="needs one pair of lines '<!-- settings -->'"):
        renewed(page)


@pytest.mark.parametrize("width", [80, 120])
def test_the_command_line_lists_them_whole(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(listing("settings"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for section in run_sections():
        for key in section.dotted():
            assert f" {key} " in text
    assert "Images per step." in text
    assert "…" not in text, "nothing is cut"
    assert max(map(len, text.splitlines())) <= width


def test_the_command_lists_settings() -> None:
    outcome = CliRunner().invoke(app, ["list", "settings"])
    assert outcome.exit_code == 0, outcome.output
    assert "train.batch_size" in outcome.output
