"""What `clbench list` and `clbench show` print, and contact sheets of benchmarks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.hyperparameters import meaning, type_text
from clbench.core.method import Method

KINDS = ("all", "methods", "benchmarks", "recipes")


def listing(kind: str) -> RenderableType:
    """Tables of what there is.

    Raises:
        ClbenchError: unknown kind.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    tables = {"methods": _methods, "benchmarks": _benchmarks, "recipes": _recipes}
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


def documented_arguments(thing: Any) -> dict[str, str]:
    """The ``Args:`` section of a Google docstring: name to text.

    >>> class Example:
    ...     '''Nothing.
    ...
    ...     Args:
    ...         rank: number of directions,
    ...             at least 1.
    ...     '''
    >>> documented_arguments(Example)
    {'rank': 'number of directions, at least 1.'}
    """
    text = inspect.getdoc(thing) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    docs: dict[str, str] = {}
    for line in section[1].splitlines() if section else []:
        entry = re.match(r"^    (\w+): (.*)$", line)
        if entry:
            docs[entry[1]] = entry[2]
        elif docs and line.strip():
            last = list(docs)[-1]
            docs[last] = f"{docs[last]} {line.strip()}"
    return docs


def _image_size(recipe: registry.BenchmarkRecipe) -> int:
    default = inspect.signature(recipe.load_builder()).parameters["image_size"].default
    return default if isinstance(default, int) else 224


def _methods() -> Table:
    table = Table("method", "what it does", "needs", title="Methods", title_justify="left")
    for name, cls in registry.methods().items():
        needs = ", ".join(sorted(cls.needs)) or "-"
        table.add_row(name, _first_line(cls), needs)
    return table


def _benchmarks() -> Table:
    table = Table("benchmark", "what it is", title="Benchmarks", title_justify="left")
    for name in registry.benchmark_names():
        table.add_row(name, registry.benchmark(name).title)
    table.add_row(f"{registry.FOLDER}/path", "Your folder task/split/class/*.jpg as a benchmark")
    return table


def _recipes() -> Table:
    table = Table("recipe", title="Recipes (clbench show RECIPE)", title_justify="left")
    for name in registry.recipe_names():
        table.add_row(name)
    return table


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _describe_method(cls: type[Method]) -> Group:
    text = (inspect.getdoc(cls) or "").split("\nArgs:")[0].rstrip()
    recipe = registry.method_recipe(cls)
    facts: list[RenderableType] = [
        Text(f"{cls.name}\n", style="bold"),
        Text(f"{text}\n"),
        Text(f"paper: {cls.paper}"),
        Text(f"needs: {', '.join(sorted(cls.needs)) or 'nothing beyond the tasks'}\n"),
        _parameters("Hyper-parameters (--set method.NAME=VALUE)", cls.schema(), cls),
    ]
    settings = {"params": recipe.params, "train": recipe.train, "benchmarks": recipe.benchmarks}
    used = {key: value for key, value in settings.items() if value}
    if used:
        facts.append(Text(f"\nrecipe methods/{cls.name}:\n{yaml.safe_dump(used)}"))
    return Group(*facts)


def _describe_benchmark(recipe: registry.BenchmarkRecipe) -> Group:
    builder = recipe.load_builder()
    schema = {
        key: p.replace(default=recipe.options.get(key, p.default))
        for key, p in recipe.option_schema().items()
    }
    return Group(
        Text(f"{recipe.name}\n", style="bold"),
        Text(f"{recipe.title}\n"),
        Text(f"{_first_line(builder)}\n"),
        _parameters("Options (--set benchmark.NAME=VALUE)", schema, builder),
        Text(f"\nbackbone: {recipe.backbone or 'ViT-B-16, openai'}"),
    )


def _parameters(title: str, schema: Mapping[str, inspect.Parameter], documented: Any) -> Table:
    docs = documented_arguments(documented)
    table = Table("name", "type", "default", "meaning", title=title, title_justify="left")
    for name, parameter in schema.items():
        default = "required" if parameter.default is parameter.empty else repr(parameter.default)
        text = meaning(parameter) or docs.get(name, "")
        table.add_row(*(Text(cell) for cell in (name, type_text(parameter), default, text)))
    return table
