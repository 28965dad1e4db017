from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint

import pytest

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.methods.nusa import NuSA


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str, value: str, group: str) -> None:
    """Pretend that a package with one entry point is installed."""
    point = EntryPoint(name, value, group)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point] if group == point.group else []
    )


def test_methods_are_found_by_their_file() -> None:
    assert registry.method("nusa") is NuSA
    assert {name: cls.name for name, cls in registry.methods().items()} == {
        name: name for name in registry.method_names()
    }


def test_facts_of_a_method_are_those_of_its_class() -> None:
    for name, cls in registry.methods().items():
        expected = (cls.title, cls.family, cls.paper, cls.needs, inspect.getdoc(cls))
        read = registry.method_facts(name, "title", "family", "paper", "needs", "__doc__")
        assert read == expected


def test_what_a_class_computes_is_asked_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the text of the file nor what `Method` says can tell it."""
    read = registry._stated

    def computed(package: str, module: str) -> dict[str, dict[str, object]]:
        found = read(package, module)
        if module == "nusa":
            found["NuSA"]["title"] = registry._COMPUTED
        return found

    monkeypatch.setattr(registry, "_stated", computed)
    assert registry.method_facts("nusa", "title", "needs") == ("NuSA-CL", frozenset())


def test_a_plug_in_method_is_listed_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "theirs", "clbench.methods.nusa:NuSA", "clbench.methods")
    assert "theirs" in registry.method_names()
    assert registry.method("theirs") is NuSA
    assert registry.method_facts("theirs", "title") == ("NuSA-CL",), "asked of the class"


def test_a_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "broken", "no_such_module:X", "clbench.methods")
    with pytest.raises(ClbenchError, match=r"plug-in 'broken' \(no_such_module:X\)"):
        registry.method("broken")


def test_a_plug_in_benchmark_needs_only_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "theirs", "clbench.datamodules.mini.sequence:tasks", "clbench.benchmarks")
    recipe = registry.benchmark("theirs")
    assert recipe.title.startswith("Eleven tasks")
    assert set(recipe.option_schema()) == {"shots", "shot_seed", "order", "rendering", "shift"}


def test_recipes_can_be_listed_and_read() -> None:
    assert "methods/nusa" in registry.recipe_names()
    assert registry.read_recipe("methods", "nusa")["results"]["mtil"]["last"] == 82.8
