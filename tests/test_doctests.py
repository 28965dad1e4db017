"""Examples in docstrings are true."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

PACKAGES = ("clbench", "clbench.methods", "clbench.datamodules", "clbench.experiments")


def modules_with_examples() -> list[str]:
    """Modules whose text shows an example, found without importing them."""
    found = {}
    for package in PACKAGES:  # in an editable install the last three are not below the first
        folders = list(importlib.import_module(package).__path__)
        for module in pkgutil.walk_packages(folders, f"{package}."):
            spec = module.module_finder.find_spec(module.name, None)
            found[module.name] = spec.origin if spec else None
        found[package] = str(Path(folders[0]) / "__init__.py")
    return sorted(name for name, path in found.items() if path and ">>> " in Path(path).read_text())


EXAMPLES = modules_with_examples()


def test_examples_are_found_in_every_kind_of_package() -> None:
    known = {"clbench.core.errors", "clbench.clip.subspaces.directions"}
    assert known <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
