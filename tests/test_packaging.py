"""What is installed, and that the commands people are told to type exist."""

import ast
import os
import re
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import check_wheel, guards

ROOT = Path(__file__).parent.parent
PYPROJECT_TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT_TEXT)["project"]
GUIDES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/adding_a_method.md",
    "docs/design.md",
    "docs/scale.md",
    "docs/trackers.md",
]
# Where the name in an import statement is not the name of the distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
    "wandb_workspaces": "wandb-workspaces",
    "yaml": "pyyaml",
}
OPTIONAL = ("dashboard", "ray")  # extras whose packages the code imports where they are asked for


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0] for requirement in requirements}


def third_party_imports(root: Path) -> set[str]:
    """Distributions that the sources import, also inside functions."""
    firsts = {
        module.split(".")[0]
        for path in guards.sources(root)
        for node in ast.walk(ast.parse(path.read_text()))
        for module in guards.imported_modules(node)
    }
    own = {"clbench", *sys.stdlib_module_names}
    return {DISTRIBUTIONS.get(first, first) for first in firsts - own}


def shell_lines(text: str) -> list[str]:
    """Lines of the shell blocks of a Markdown text, continued lines joined, comments dropped."""
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).strip().removeprefix("$ ") for line in lines]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def clbench_commands() -> dict[str, set[str]]:
    """The subcommands and their options; the empty name stands for the command itself, and
    "data list" for a command of a group."""
    import typer

    from clbench.cli.app import app

    group: Any = typer.main.get_command(app)
    commands = {"": group, **group.commands}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {})
        commands |= {f"{name} {word}": subcommand for word, subcommand in inner.items()}
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        | {option for parameter in command.params for option in parameter.secondary_opts}
        | {"--help"}
        for name, command in commands.items()
    }


def unknown_parts(line: str, commands: dict[str, set[str]]) -> list[str]:
    """What a `clbench ...` command line names that does not exist."""
    words = re.findall(r"(?:^|(?<=[\s/]))clbench\b(.*)", line)[0].split()
    name = words[0] if words and not words[0].startswith("-") else ""
    if any(known.startswith(f"{name} ") for known in commands):
        name = " ".join(words[:2])
    if name not in commands:
        return [name]
    options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [f"{name} {option}".strip() for option in options if option not in commands[name]]


def test_every_import_is_a_declared_dependency() -> None:
    imported = third_party_imports(ROOT)
    assert {"torch", "lightning"} <= imported
    extras = [line for name in OPTIONAL for line in PROJECT["optional-dependencies"][name]]
    assert imported - requirement_names(PROJECT["dependencies"]) == requirement_names(extras)


def test_every_dependency_is_imported() -> None:
    declared = requirement_names(PROJECT["dependencies"])
    assert declared - third_party_imports(ROOT) == set()


def test_imports_inside_functions_count(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/a.py").write_text("import os\ndef f():\n    import yaml, scipy.linalg\n")
    assert third_party_imports(tmp_path) == {"pyyaml", "scipy"}


def test_lower_bounds_have_reasons_and_nothing_is_pinned() -> None:
    bounded = [line for line in PYPROJECT_TEXT.splitlines() if re.match(r'\s+"[\w-]+[<>=~!]', line)]
    assert len(bounded) >= 5
    assert [line for line in bounded if not re.search(r">=[\w.]+\",  # \S", line)] == []


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert version("clbench") == PROJECT["version"] == citation["version"]
    assert f"## [{PROJECT['version']}]" in changelog


def test_one_license_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert (
        "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    )


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="clbench")
    assert callable(script.load())


def test_the_gate_is_executable() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("guide", GUIDES)
def test_make_targets_in_the_guides_exist(guide: str) -> None:
    lines = shell_lines((ROOT / guide).read_text())
    used = {word for line in lines for word in re.findall(r"\bmake ([a-z]+)", line)}
    assert used - make_targets() == set()


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_in_the_guides_exist(guide: str) -> None:
    lines = shell_lines((ROOT / guide).read_text())
    commands = clbench_commands()
    used = [line for line in lines if re.search(r"(^|[\s/])clbench( |$)", line)]
    assert [part for line in used for part in unknown_parts(line, commands)] == []


def test_commands_in_the_makefile_exist() -> None:
    lines = re.findall(r"^\t\$\(BIN\)/(clbench .*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert any("--benchmark mini --methods finetune,nusa" in line for line in lines)
    commands = clbench_commands()
    assert [part for line in lines for part in unknown_parts(line, commands)] == []


def test_the_readme_says_how_to_start() -> None:
    lines = shell_lines((ROOT / "README.md").read_text())
    assert {"make demo", "make test"} <= set(lines)


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("clbench run --method nusa --set method.rank=16", []),
        ("clbench --version", []),
        ("uv run clbench run --method=nusa", []),
        ("clbench train --method nusa", ["train"]),
        ("clbench run --metod nusa", ["run --metod"]),
        ("clbench data list mtil", []),
        ("clbench data fetch mtil", ["data fetch"]),
    ],
)
def test_unknown_commands_are_noticed(line: str, unknown: list[str]) -> None:
    commands = {"": {"--version"}, "run": {"--method", "--set"}, "data": set(), "data list": set()}
    assert unknown_parts(line, commands) == unknown


def test_shell_lines_reads_only_shell_blocks() -> None:
    text = "make a\n```bash\n$ make b  # why\nmake \\\n  c\n```\n```python\nmake d\n```\n"
    assert shell_lines(text) == ["make b", "make    c"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of four files, one of them not for the wheel."""
    for name in ("clbench/core/a.py", "methods/b.py", "experiments/methods/b.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "clbench/__pycache__").mkdir()
    (tmp_path / "clbench/__pycache__/a.pyc").touch()
    return tmp_path


COMPLETE = ["clbench/core/a.py", "clbench/methods/b.py", "clbench/experiments/methods/b.yaml"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (COMPLETE, []),
        (COMPLETE[:2], ["not in the wheel: clbench/experiments/methods/b.yaml"]),
        ([*COMPLETE, "tests/a.py"], ["not in the sources: tests/a.py"]),
        ([*COMPLETE, "methods/b.py"], ["not in the sources: methods/b.py"]),
    ],
    ids=["complete", "recipe missing", "tests inside", "folder not mapped"],
)
def test_a_wheel_is_compared_with_the_sources(
    checkout: Path, files: list[str], expected: list[str]
) -> None:
    wheel = checkout / "clbench-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*files, "clbench-1.dist-info/METADATA"]:
            archive.writestr(name, "")
    assert check_wheel.differences(checkout, wheel) == expected
