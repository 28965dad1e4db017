"""Every recipe resolves against the real signatures, and nothing is without one."""

from __future__ import annotations

from importlib.resources import files

import pytest
import yaml

from clbench import config, registry
from clbench.core.errors import ClbenchError


def recipe_files(kind: str) -> list[str]:
    folder = files("clbench.experiments") / kind
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def test_every_method_has_a_recipe_and_every_recipe_a_method() -> None:
    assert recipe_files("methods") == registry.method_names()
    assert len(registry.method_names()) >= 6


def test_every_benchmark_recipe_is_listed() -> None:
    assert recipe_files("benchmarks") == registry.benchmark_names()
    assert {"mini", "mini-5shot", "mini-cil-10step"} <= set(registry.benchmark_names())


@pytest.mark.parametrize("method", registry.method_names())
def test_on_every_benchmark_it_resolves_to_valid_settings(method: str) -> None:
    for benchmark in registry.benchmark_names():
        settings, cls = config.resolve(method, benchmark)
        assert cls.name == method, benchmark
        assert set(settings.method.params) == set(cls.schema()), benchmark


@pytest.mark.parametrize("name", registry.method_names())
def test_sections_of_a_method_recipe_belong_to_benchmarks(name: str) -> None:
    known = set(registry.benchmark_names()) | {
        registry.benchmark(b).family for b in registry.benchmark_names()
    }
    recipe = registry.method_recipe(registry.method(name))
    assert set(recipe.benchmarks) <= known
    for section in [*recipe.benchmarks.values()]:
        assert set(section) <= {"params", "train", "orders", "search"}
        for inner in section.get("orders", {}).values():
            assert set(inner) <= {"params", "train"}


@pytest.mark.parametrize("name", registry.method_names())
def test_published_numbers_name_their_source(name: str) -> None:
    for numbers in registry.method_recipe(registry.method(name)).results.values():
        assert numbers["source"]
        values = [v for k, v in numbers.items() if k != "source"]
        assert values
        assert all(0 < v < 100 for v in values)


def test_an_unknown_key_in_a_recipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load("titel: x\nbuilder: a:b\n")
    monkeypatch.setattr(registry, "read_recipe", lambda kind, name: dict(content))
    with pytest.raises(ClbenchError, match="'titel': did you mean 'title'"):
        registry.benchmark("mini")
