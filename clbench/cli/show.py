"""What `clbench list` and `clbench show` print, and contact sheets of benchmarks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clbench import registry
from clbench.cli.reference import first_paragraph, options_section, run_sections
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.hyperparameters import meaning, type_text

if TYPE_CHECKING:
    from clbench.core.method import Method

KINDS = ("all", "methods", "benchmarks", "recipes", "settings")


def listing(kind: str) -> RenderableType:
    """Tables of methods, benchmarks, recipes and settings.

    Raises:
        ClbenchError: unknown kind.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    tables = {
        "methods": _methods,
        "benchmarks": _benchmarks,
        "recipes": _recipes,
        "settings": _settings,
    }
    return Group(*(make() for name, make in tables.items() if kind in (name, "all")))


def description(name: str) -> RenderableType:
    """What a method, benchmark or recipe is.

    Raises:
        ClbenchError: no such name.
    """
    folder = name.startswith(registry.FOLDER)
    if name in registry.method_names() or (":" in name and not folder):
        return _describe_method(registry.method(name))
    if folder or name in registry.benchmark_names():
        return _describe_benchmark(registry.benchmark(name))
    if name in registry.recipe_names():
        content = registry.read_recipe(*name.split("/", 1))
        return Text(yaml.safe_dump(content, sort_keys=False))
    known = registry.method_names() + registry.benchmark_names() + registry.recipe_names()
    raise unknown_name("name", name, known)


def write_contact_sheet(name: str, path: Path, *, columns: int = 20) -> None:
    """Write a picture with one row of test images per task.

    Raises:
        ClbenchError: not a benchmark, its data are missing, or the picture cannot be written.
    """
    import numpy as np
    from PIL import Image

    recipe = registry.benchmark(name)
    size = int(recipe.options.get("image_size", 0)) or _image_size(recipe)
    sequence = recipe.load_builder()(name=name, image_size=size, **recipe.options)
    rows = []
    for task in range(len(sequence.benchmark)):
        images = sequence.test_set(task)
        shown = images.__getitems__(range(min(columns, len(images))))[0].numpy()
        blank = np.full((columns - len(shown), 3, size, size), 255, np.uint8)
        strip = np.concatenate([shown, blank]).transpose(2, 0, 3, 1)
        rows.append(strip.reshape(size, columns * size, 3))
    sheet = Image.fromarray(np.concatenate(rows))
    enlarge = max(1, 64 // size)
    sheet = sheet.resize((sheet.width * enlarge, sheet.height * enlarge), Image.Resampling.NEAREST)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise ClbenchError(f"cannot write the picture {path}: {error}") from error


def _image_size(recipe: registry.BenchmarkRecipe) -> int:
    default = inspect.signature(recipe.load_builder()).parameters["image_size"].default
    return default if isinstance(default, int) else 224


def _table(title: str, name: str, *others: str) -> Table:
    """A table whose names stay whole; other columns wrap, so that nothing is cut."""
    table = Table(title=title, title_justify="left")
    table.add_column(name, no_wrap=True)
    for other in others:
        table.add_column(other, overflow="fold")
    return table


def _methods() -> Table:
    table = _table("Methods", "method", "what it does", "needs")
    for name in registry.method_names():
        about, needs = registry.method_facts(name, "__doc__", "needs")
        table.add_row(name, first_paragraph(about), ", ".join(sorted(needs)) or "-")
    return table


def _benchmarks() -> Table:
    table = _table("Benchmarks", "benchmark", "what it is")
    for name in registry.benchmark_names():
        table.add_row(name, registry.benchmark(name).title)
    table.add_row(f"{registry.FOLDER}/path", "Your folder task/split/class/*.jpg as a benchmark")
    return table


def _recipes() -> Table:
    table = _table("Recipes (clbench show RECIPE)", "recipe")
    for name in registry.recipe_names():
        table.add_row(name)
    return table


def _describe_method(cls: type[Method]) -> Group:
    text = (inspect.getdoc(cls) or "").split("\nArgs:")[0].rstrip()
    recipe = registry.method_recipe(cls)
    facts: list[RenderableType] = [
        Text(f"{cls.name}\n", style="bold"),
        Text(f"{text}\n"),
        Text(f"paper: {cls.paper}"),
        Text(f"needs: {', '.join(sorted(cls.needs)) or 'nothing beyond the tasks'}\n"),
        _parameters("Hyper-parameters (--set method.NAME=VALUE)", cls.schema()),
    ]
    settings = {"params": recipe.params, "train": recipe.train, "benchmarks": recipe.benchmarks}
    used = {key: value for key, value in settings.items() if value}
    if used:
        facts.append(Text(f"\nrecipe methods/{cls.name}:\n{yaml.safe_dump(used)}"))
    return Group(*facts)


def _describe_benchmark(recipe: registry.BenchmarkRecipe) -> Group:
    section = options_section(recipe)
    schema = {
        key: p.replace(default=recipe.options.get(key, p.default))
        for key, p in section.schema.items()
    }
    return Group(
        Text(f"{recipe.name}\n", style="bold"),
        Text(f"{recipe.title}\n"),
        Text(f"{section.about}\n"),
        _parameters("Options (--set benchmark.NAME=VALUE)", schema),
        Text(f"\nbackbone: {recipe.backbone or 'ViT-B-16, openai'}"),
    )


def _settings() -> Table:
    table = _parameter_table("Settings (--set NAME=VALUE; those of a method or benchmark: show)")
    for section in run_sections():
        for key, parameter in section.dotted().items():
            table.add_row(*_parameter_row(key, parameter))
    return table


def _parameters(title: str, schema: Mapping[str, inspect.Parameter]) -> Table:
    table = _parameter_table(title)
    for name, parameter in schema.items():
        table.add_row(*_parameter_row(name, parameter))
    return table


def _parameter_table(title: str) -> Table:
    return _table(title, "name", "type", "default", "meaning")


def _parameter_row(name: str, parameter: inspect.Parameter) -> list[Text]:
    default = "required" if parameter.default is parameter.empty else repr(parameter.default)
    return [Text(cell) for cell in (name, type_text(parameter), default, meaning(parameter))]
