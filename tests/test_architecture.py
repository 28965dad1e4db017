"""The shape of the code, checked; each guard also against a tree that breaks its rule."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import guards

ROOT = Path(__file__).parent.parent

PYPROJECT = """
[tool.setuptools]
packages = ["clbench", "clbench.cli", "clbench.core", "clbench.experiments", "clbench.methods"]
[tool.setuptools.package-dir]
"clbench" = "clbench"
"clbench.methods" = "methods"
"clbench.experiments" = "experiments"
"""

DESIGN = """
```imports
core         ->
clip         -> core
methods      -> core clip
datamodules  -> core
engine       -> core clip
report       -> core
clip/layers  -> clip
```
"""

Guard = Callable[[Path], list[str]]
GUARDS: list[Guard] = [
    guards.import_violations,
    guards.circle_violations,
    guards.layout_violations,
    guards.bare_import_violations,
    guards.process_state_violations,
    guards.sibling_method_violations,
    guards.folder_violations,
    guards.package_violations,
    guards.naming_violations,
    guards.untested_benchmarks,
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of one method that keeps every rule."""
    files = {
        "pyproject.toml": PYPROJECT,
        "clbench/__init__.py": "",
        "docs/design.md": DESIGN,
        "clbench/cli/app.py": "import clbench.engine.runner\nimport clbench.methods.nusa\n",
        "clbench/cli/__init__.py": "",
        "clbench/core/__init__.py": "",
        "clbench/core/method.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from clbench.clip.model import CLIP\n"
        ),
        "methods/__init__.py": "",
        "methods/nusa.py": (
            "from clbench.core.method import Method\n"
            "class Helper:\n    name = 'other'\n"
            "class NuSA(Method):\n    name: ClassVar[str] = 'nusa'\n"
        ),
        "experiments/methods/nusa.yaml": "",
        "experiments/benchmarks/mini.yaml": "",
        "docs/methods/nusa.md": "",
        "tests/methods/test_nusa.py": "",
        "tests/test_build.py": 'build("mini")\n',
    }
    for name, text in files.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.__name__)
def test_the_code_keeps_the_rule(guard: Guard) -> None:
    assert guard(ROOT) == []


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.__name__)
def test_a_sound_tree_breaks_no_rule(guard: Guard, tree: Path) -> None:
    assert guard(tree) == []


def test_the_guards_see_the_code() -> None:
    parts = [guards.module_parts(ROOT, path) for path in guards.sources(ROOT)]
    rules = guards.allowed_imports(ROOT)
    assert {guards.layer_of(p) for p in parts} | {"experiments"} == {
        *(name for name in rules if "/" not in name),
        guards.TOP,
    }
    folders = {"/".join(p[:-1]) for p in parts}
    assert {name for name in rules if "/" in name} <= folders


@pytest.mark.parametrize(
    ("path", "statement", "expected"),
    [
        ("clbench/core/a.py", "import clbench.clip.model", "core imports clbench.clip.model"),
        ("clbench/core/a.py", "from clbench import clip", "core imports clbench.clip"),
        ("clbench/core/a.py", "from clbench import registry", "core imports clbench.registry"),
        ("clbench/clip/a.py", "from clbench.methods.nusa import NuSA", "clip imports"),
        ("methods/a.py", "from clbench.engine import runner", "methods imports clbench.engine"),
        ("methods/a.py", "from clbench.cli.app import main", "methods imports clbench.cli.app"),
        ("datamodules/a.py", "import clbench.clip.model", "datamodules imports"),
        ("clbench/engine/a.py", "import clbench.datamodules.mini.sequence", "engine imports"),
        ("clbench/report/a.py", "import clbench.engine.runner", "report imports"),
        ("methods/a.py", "import lightning as L", "methods imports lightning"),
        ("clbench/cli/app.py", "from lightning.pytorch import Trainer", "top imports lightning"),
        ("clbench/clip/a.py", "import clbench.clip.layers.b", "clip imports clbench.clip.layers.b"),
        ("clbench/clip/layers/b.py", "import clbench.clip.extra.c", "clip/layers imports"),
        ("clbench/core/a.py", "from . import task", "relative import ."),
        ("clbench/core/a.py", "from .task import Task", "relative import .task"),
        ("clbench/cli/app.py", "import methods.nusa", "bare import methods.nusa"),
        ("clbench/cli/app.py", "from datamodules import mini", "bare import datamodules"),
        ("clbench/registry.py", "import clbench.methods", "imported at import time"),
        ("clbench/__init__.py", "from clbench import api", "imported at import time"),
        ("clbench/__init__.py", "import clbench.clip.model", "imported at import time"),
    ],
)
def test_forbidden_imports_are_reported(
    tree: Path, path: str, statement: str, expected: str
) -> None:
    write(tree, "clbench/clip/layers/b.py", "")
    write(tree, "clbench/clip/extra/c.py", "")
    write(tree, path, f"# a comment\n{statement}\n")
    (problem,) = guards.import_violations(tree)
    assert problem.startswith(f"{path}:2: ")
    assert expected in problem


def test_a_forbidden_import_inside_a_function_is_reported(tree: Path) -> None:
    write(tree, "clbench/core/a.py", "def f():\n    import clbench.clip\n")
    assert guards.import_violations(tree) == ["clbench/core/a.py:2: core imports clbench.clip"]


def test_the_registry_may_import_inside_functions(tree: Path) -> None:
    write(tree, "clbench/registry.py", "def f():\n    import clbench.methods\n")
    assert guards.import_violations(tree) == []


def test_the_else_branch_of_a_type_checking_block_runs(tree: Path) -> None:
    write(
        tree, "clbench/core/a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import clbench.clip\n"
    )
    assert guards.import_violations(tree) == ["clbench/core/a.py:4: core imports clbench.clip"]


def test_bare_imports_in_tests_are_reported(tree: Path) -> None:
    write(tree, "tests/test_a.py", "from methods.nusa import NuSA\n")
    assert guards.bare_import_violations(tree) == ["tests/test_a.py:1: bare import methods.nusa"]


@pytest.mark.parametrize("code", ["sys.path.append('x')", "os.chdir('x')"])
def test_changes_of_the_process_are_reported(tree: Path, code: str) -> None:
    write(tree, "clbench/cli/app.py", f"{code}\n")
    assert len(guards.process_state_violations(tree)) == 1


def test_methods_that_import_each_other_are_reported(tree: Path) -> None:
    write(tree, "methods/lora.py", "from clbench.methods.nusa import NuSA\n")
    assert guards.sibling_method_violations(tree) == ["methods/lora.py:1: imports methods/nusa.py"]


def test_a_circle_of_files_is_reported(tree: Path) -> None:
    write(tree, "clbench/core/a.py", "import clbench.core.b\n")
    write(tree, "clbench/core/b.py", "def f():\n    from clbench.core.a import x\n")
    assert guards.circle_violations(tree) == ["core/a -> core/b -> core/a"]


def test_a_crowded_folder_is_reported(tree: Path) -> None:
    for i in range(guards.CROWDED + 1):
        write(tree, f"clbench/engine/a{i}.py", "")
        write(tree, f"methods/a{i}.py", "")
    assert guards.layout_violations(tree) == ["clbench/engine: 13 code files, more than 12"]


@pytest.mark.parametrize("path", ["clbench/core/core_types.py", "clbench/core_types.py"])
def test_a_name_that_repeats_a_folder_is_reported(tree: Path, path: str) -> None:
    write(tree, path, "")
    assert guards.layout_violations(tree) == [f"{path}: its name begins with that of a folder"]


@pytest.mark.parametrize(
    "path",
    [
        "methods/nested/a.py",
        "experiments/studies/a.py",
        "experiments/a.py",
        "clbench/methods/a.py",
    ],
)
def test_misplaced_code_is_reported(tree: Path, path: str) -> None:
    write(tree, path, "")
    assert len(guards.folder_violations(tree)) == 1


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("clbench/engine/__init__.py", "clbench.engine"),
        ("clbench/core/results/__init__.py", "clbench.core.results"),
        ("datamodules/mtil.py", "datamodules"),
    ],
)
def test_a_folder_missing_from_the_packages_is_reported(
    tree: Path, path: str, package: str
) -> None:
    write(tree, path, "")
    (problem,) = guards.package_violations(tree)
    assert package in problem


def test_a_listed_package_without_folder_is_reported(tree: Path) -> None:
    (tree / "clbench/core/__init__.py").unlink()
    assert guards.package_violations(tree) == [
        "pyproject.toml: clbench.core is clbench/core, on disk None"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "class NuSA(Method):\n    name = 'nussa'\n",
        "class NuSA(Method):\n    paper = 'nusa'\n",
        "class NuSA(LoRA):\n    name = 'nusa'\n",
        "class NuSA(Method):\n    name = 'nusa'\nclass Two(Method):\n    name = 'two'\n",
    ],
    ids=["other name", "no name", "not a Method", "two methods"],
)
def test_a_method_file_without_its_one_method_is_reported(tree: Path, text: str) -> None:
    write(tree, "methods/nusa.py", text)
    (problem,) = guards.naming_violations(tree)
    assert problem.startswith("methods/nusa.py: names of its methods are")


@pytest.mark.parametrize(
    "link",
    ["experiments/methods/nusa.yaml", "docs/methods/nusa.md", "tests/methods/test_nusa.py"],
)
def test_a_missing_link_of_a_method_is_reported(tree: Path, link: str) -> None:
    (tree / link).unlink()
    assert guards.naming_violations(tree) == [f"{link} is missing"]


def test_a_page_about_no_method_is_reported(tree: Path) -> None:
    write(tree, "docs/methods/ghost.md", "")
    assert guards.naming_violations(tree) == ["docs/methods/ghost.md: no such method"]


def test_a_benchmark_that_no_test_uses_is_reported(tree: Path) -> None:
    write(tree, "experiments/benchmarks/mtil.yaml", "")
    problem = "experiments/benchmarks/mtil.yaml: no test uses it"
    assert guards.untested_benchmarks(tree) == [problem]
    write(tree, "tests/test_recipes.py", "for name in registry.benchmark_names(): ...\n")
    assert guards.untested_benchmarks(tree) == []
