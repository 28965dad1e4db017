"""All settings, read from the code: for `clbench list settings` and ``docs/settings.md``."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any

from pydantic import BaseModel, Field

from clbench import registry
from clbench.core.hyperparameters import markdown_table, meaning
from clbench.core.settings import RunSettings

Schema = dict[str, Parameter]

FILLED_IN = frozenset(
    {"benchmark.name", "benchmark.options", "method.decides_by_batch", "method.name"}
    | {"method.params"}
)
"""Fields that users do not set under these names."""


@dataclass(frozen=True)
class Section:
    """Settings that belong together.

    Attributes:
        prefix: put before their names with ``--set``, e.g. ``train``; empty for none.
        about: one line on all of them.
        schema: name to `inspect.Parameter`, whose annotation carries the meaning.
    """

    prefix: str
    about: str
    schema: Schema

    def dotted(self) -> Schema:
        """The schema with the names that ``--set`` takes."""
        return {f"{self.prefix}.{n}" if self.prefix else n: p for n, p in self.schema.items()}


def documented(thing: Any, section: str = "Args") -> dict[str, str]:
    """A section of a Google docstring: name to text.

    >>> class Example:
    ...     '''Nothing.
    ...
    ...     Args:
    ...         rank: number of directions,
    ...             at least 1.
    ...     '''
    >>> documented(Example)
    {'rank': 'number of directions, at least 1.'}
    """
    text = inspect.getdoc(thing) or ""
    found = re.search(rf"^{section}:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    docs: dict[str, str] = {}
    for line in found[1].splitlines() if found else []:
        entry = re.match(r"^    (\w+): (.*)$", line)
        if entry:
            docs[entry[1]] = entry[2]
        elif docs and line.strip():
            last = list(docs)[-1]
            docs[last] = f"{docs[last]} {line.strip()}"
    return docs


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return (docstring or "").split("\n\n")[0].replace("\n", " ")


def with_meanings(schema: Mapping[str, Parameter], docs: Mapping[str, str]) -> Schema:
    """A schema whose annotations carry texts of a docstring, where they have none of their own."""
    return {
        name: p
        if meaning(p) or name not in docs
        else p.replace(annotation=Annotated[p.annotation, Field(description=_sentence(docs[name]))])
        for name, p in schema.items()
    }


def run_sections() -> list[Section]:
    """The settings of every run, whatever its benchmark and method."""
    top, nested = _fields(RunSettings), []
    for name, field in RunSettings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            del top[name]
            schema = {n: p for n, p in _fields(model).items() if f"{name}.{n}" not in FILLED_IN}
            if schema:
                nested.append(Section(name, first_paragraph(inspect.getdoc(model)), schema))
    return [Section("", "Settings of the run as a whole.", top), *nested]


def options_section(recipe: registry.BenchmarkRecipe) -> Section:
    """The options of a benchmark's builder; the path of a folder is part of its name."""
    builder = recipe.load_builder()
    schema = with_meanings(recipe.option_schema(), documented(builder))
    if recipe.name.startswith(registry.FOLDER):
        del schema["path"]
    return Section("benchmark", first_paragraph(inspect.getdoc(builder)), schema)


def settings_page() -> str:
    """The tables of ``docs/settings.md``."""
    parts = [
        _chapter(f"## `{section.prefix}`" if section.prefix else "## The run", section)
        for section in run_sections()
    ]
    recipes = [registry.benchmark(name) for name in registry.benchmark_names()]
    parts.append("## Benchmarks\n\nWhat the recipe of a benchmark sets:\n")
    parts.append("| benchmark | sets |\n| --- | --- |\n" + "".join(map(_recipe_row, recipes)))
    groups: dict[str, list[registry.BenchmarkRecipe]] = {}
    for recipe in (*recipes, registry.benchmark(f"{registry.FOLDER}/path")):
        groups.setdefault(recipe.builder, []).append(recipe)
    for group in groups.values():
        title = "### " + ", ".join(f"`{recipe.name}`" for recipe in group)
        parts.append(_chapter(title, options_section(group[0])))
    parts.append("## Methods\n\nMore on each: [docs/methods](methods).\n")
    for name, cls in registry.methods().items():
        parts.append(_chapter(f"### `{name}`", Section("method", "", dict(cls.schema()))))
    return "\n".join(parts)


def _fields(model: type[BaseModel]) -> Schema:
    hints = typing.get_type_hints(model, include_extras=True)
    schema = {
        name: Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[name])
        for name, field in model.model_fields.items()
    }
    return with_meanings(schema, documented(model, "Attributes"))


def _sentence(text: str) -> str:
    """A text of a docstring as a sentence for tables, with Markdown's marks for code."""
    text = text.replace("``", "`").rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _chapter(title: str, section: Section) -> str:
    about = f"{section.about}\n\n" if section.about else ""
    table = markdown_table(section.dotted())
    return f"{title}\n\n{about}{table}"


def _recipe_row(recipe: registry.BenchmarkRecipe) -> str:
    trees = {"benchmark": recipe.options, "backbone": recipe.backbone, "train": recipe.train}
    sets = [
        f"`{section}.{key}={'(by task)' if isinstance(value, dict) else value}`"
        for section, tree in trees.items()
        for key, value in tree.items()
    ]
    return f"| `{recipe.name}` | {', '.join(sets) or 'nothing'} |\n"
