"""The hash of a method's source follows everything that the method is made of."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench import registry
from clbench.core.method import Method
from clbench.engine.rundir.sources import source_hash

BODY = """
from clbench.core.method import Method
{imports}
class Mine(Method):
    name = "mine"
    def loss(self, batch):
        {inside}
        return {{}}
"""

Files = dict[str, str]


def method_file(imports: str = "", inside: str = "pass") -> str:
    return BODY.format(imports=imports, inside=inside)


MODULES = ("mine", "beside", "further", "parts", "mypackage")
"""Names at the top of what the tests write."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()


def forget() -> None:
    """Let Python load the modules anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]


def hashed(folder: Path, files: Files, module: str = "mine") -> str:
    """The hash of a class in a module, as a fresh process has it."""
    forget()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for cache in folder.rglob("__pycache__"):  # times are compared by whole seconds
        for file in cache.iterdir():
            file.unlink()
    importlib.invalidate_caches()
    if module.endswith(".py"):
        return source_hash(registry.method(f"{folder / module}:Mine"))
    return source_hash(importlib.import_module(module).Mine)


PLAIN: Files = {"mine.py": method_file()}
BESIDE: Files = {
    "mine.py": method_file("from beside import function"),
    "beside.py": "def function(): return 1\n",
}
CONSTANT: Files = {"mine.py": method_file("from beside import RATE"), "beside.py": "RATE = 1\n"}
LATE: Files = {"mine.py": method_file(inside="import beside"), "beside.py": "RATE = 1\n"}
FURTHER: Files = {
    "mine.py": method_file("import beside"),
    "beside.py": "import numpy, further\n",
    "further.py": "RATE = 1\n",
}
PLAIN_FOLDER: Files = {
    "mine.py": method_file("from parts.losses import RATE"),
    "parts/losses.py": "RATE = 1\n",
}
PACKAGE: Files = {
    "mypackage/__init__.py": "",
    "mypackage/sub/__init__.py": "",
    "mypackage/sub/mine.py": method_file("from ..losses import RATE\nfrom . import near"),
    "mypackage/sub/near.py": "RATE = 1\n",
    "mypackage/losses.py": "RATE = 1\n",
}
BASE: Files = {
    "mine.py": method_file("from beside import Base").replace("(Method)", "(Base)"),
    "beside.py": "from clbench.core.method import Method\nclass Base(Method):\n    '''1'''\n",
}


@pytest.mark.parametrize(
    ("files", "edited", "module"),
    [
        (PLAIN, "mine.py", "mine"),
        (PLAIN, "mine.py", "mine.py"),
        (BESIDE, "beside.py", "mine"),
        (BESIDE, "beside.py", "mine.py"),
        (CONSTANT, "beside.py", "mine.py"),
        (LATE, "beside.py", "mine"),
        (FURTHER, "further.py", "mine"),
        (PLAIN_FOLDER, "parts/losses.py", "mine"),
        (PACKAGE, "mypackage/sub/near.py", "mypackage.sub.mine"),
        (PACKAGE, "mypackage/losses.py", "mypackage.sub.mine"),
        (BASE, "beside.py", "mine"),
    ],
    ids=[
        "own module",
        "own file",
        "helper",
        "helper of a file",
        "constant",
        "imported in a function",
        "helper of a helper",
        "folder without __init__",
        "package",
        "parent package",
        "base class",
    ],
)
def test_an_edit_changes_the_hash(files: Files, edited: str, module: str, folder: Path) -> None:
    before = hashed(folder, files, module)
    assert hashed(folder, files, module) == before
    assert hashed(folder, {**files, edited: files[edited] + "# another\n"}, module) != before
    assert hashed(folder, files, module) == before, "putting it back is enough"


def test_other_files_do_not_count(folder: Path) -> None:
    before = hashed(folder, {**PLAIN, "notes.py": "1"})
    assert hashed(folder, {**PLAIN, "notes.py": "2"}) == before


def test_what_is_loaded_by_chance_does_not_count(folder: Path) -> None:
    before = hashed(folder, LATE)
    fresh = hashed(folder, LATE)
    importlib.import_module("beside")
    cls = importlib.import_module("mine").Mine
    again = source_hash.__wrapped__(cls)
    assert before == fresh == again


def test_a_file_may_be_moved(folder: Path) -> None:
    before = hashed(folder, PLAIN, "mine.py")
    assert hashed(folder, {"elsewhere/mine.py": PLAIN["mine.py"]}, "elsewhere/mine.py") == before


def test_the_hash_is_that_of_the_code_that_was_loaded(folder: Path) -> None:
    (folder / "mine.py").write_text(method_file())
    cls = registry.method(f"{folder / 'mine.py'}:Mine")
    before = source_hash(cls)
    (folder / "mine.py").write_text(method_file(inside="print('edited')"))
    assert source_hash(cls) == before
    assert source_hash(registry.method(f"{folder / 'mine.py'}:Mine")) != before


def test_every_method_of_clbench_has_a_hash_of_its_own() -> None:
    hashes = {source_hash(cls) for cls in registry.methods().values()}
    assert len(hashes) == len(registry.method_names())


NOTEBOOK = """
from __future__ import annotations
import torch
from clbench.core.method import Method
class Mine(Method):
    name = "mine"
    needs = frozenset({"replay", "all-data"})
    rate = 0.5
    def loss(self, batch, factor=2):
        return {"a": batch.images.mean()} if batch in {"x", "y", "z"} else {}
    @torch.no_grad()
    def end_task(self, task, data):
        self.rate = 3
    @property
    def size(self):
        return [x + 1 for x in (4, 5)]
"""


def from_notebook(code: str) -> type[Method]:
    """A class that stands in no file."""
    namespace: dict[str, Any] = {"__name__": "notebook"}
    exec(code, namespace)
    return namespace["Mine"]


def test_a_class_without_a_file_is_known_by_what_it_does() -> None:
    before = source_hash(from_notebook(NOTEBOOK))
    assert source_hash(from_notebook("\n\n# moved down\n" + NOTEBOOK)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate = 0.5", "rate = 0.6"),
        ("factor=2", "factor=3"),
        ("batch.images.mean()", "batch.images.sum()"),
        ("self.rate = 3", "self.rate = 4"),
        ("x + 1", "x + 2"),
        ("(4, 5)", "(4, 6)"),
        ('"y", "z"', '"y", "w"'),
        ('"all-data"', '"reference-texts"'),
    ],
)
def test_every_part_of_it_counts(old: str, new: str) -> None:
    assert old in NOTEBOOK
    changed = source_hash(from_notebook(NOTEBOOK.replace(old, new)))
    assert changed != source_hash(from_notebook(NOTEBOOK))


@pytest.mark.slow
def test_it_has_the_same_hash_in_every_process() -> None:
    """Sets are in another order in every process."""
    code = (
        "from clbench.engine.rundir.sources import source_hash\n"
        "from tests.engine.rundir.test_sources import NOTEBOOK, from_notebook\n"
        "print(source_hash(from_notebook(NOTEBOOK)))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{source_hash(from_notebook(NOTEBOOK))}\n"}
