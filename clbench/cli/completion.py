"""Shell completion: names, settings with their values, run directories.

Where nothing is offered, shells fall back to the names of files.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from clbench import registry
from clbench.core.errors import ClbenchError

if TYPE_CHECKING:
    from clbench.cli.reference import Section

Item = tuple[str, str]
"""A completion and its help."""

RUNS = "runs"
DEPTH = 4
"""Depth to which run directories are searched for below a folder."""
VISITED = 2000
"""Largest number of folders to search: a key press must not walk over a whole disk."""
CHOSEN = {"method": "nusa", "benchmark": "mini"}
"""The method and the benchmark of a command line that names none."""
PROBES = "probes"
"""What `clbench data list` calls all that probes look at."""


def methods(incomplete: str) -> list[str]:
    """Methods for ``--method``."""
    return _starting(registry.method_names(), incomplete)


def method_list(incomplete: str) -> list[str]:
    """Methods for options that take several, with commas between."""
    return _next_of_list(["all", *registry.method_names()], incomplete)


def benchmarks(incomplete: str) -> list[Item]:
    """Benchmarks, each with its title."""
    known = _starting([*registry.benchmark_names(), registry.FOLDER], incomplete)
    return [(n, "" if n == registry.FOLDER else registry.benchmark(n).title) for n in known]


def names(incomplete: str) -> list[str]:
    """What `clbench show` describes."""
    known = registry.method_names() + registry.benchmark_names() + registry.recipe_names()
    return [*_starting(known, incomplete), *runs(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """What `clbench list` lists."""
    return _starting(["all", "methods", "benchmarks", "recipes", "settings"], incomplete)


def backbones(incomplete: str) -> list[str]:
    """The backbones that benchmarks name, as ``--backbone`` takes them."""
    return _starting(["mini", "ViT-B-16/openai"], incomplete)


def precisions(incomplete: str) -> list[str]:
    """Precisions."""
    return _starting(["fp32", "bf16", "fp16"], incomplete)


def loggers(incomplete: str) -> list[str]:
    """Trackers, with commas between."""
    return _next_of_list(["csv", "tensorboard", "wandb"], incomplete)


def columns(incomplete: str) -> list[str]:
    """Columns of the summary, with commas between."""
    from clbench.report.tables.grid import column_names

    return _next_of_list(column_names(), incomplete)


def presets(incomplete: str) -> list[str]:
    """Choices of columns."""
    from clbench.report.tables.grid import PRESETS

    return _starting(PRESETS, incomplete)


def probes(incomplete: str) -> list[str]:
    """Probes, with commas between."""
    return _next_of_list(registry.probe_names(), incomplete)


def studies(incomplete: str) -> list[str]:
    """Studies."""
    return _starting(registry.study_names(), incomplete)


def data_sets(incomplete: str) -> list[str]:
    """What `clbench data` takes: families of benchmarks, and data sets."""
    from clbench.datamodules.catalogue.catalogue import CATALOG, OTHERS

    families = ["all", "mtil", "xtail", "cifar100", "tinyimagenet", "imagenet-r", "cub200"]
    return _starting([*families, "domainnet", "mini", *CATALOG, *OTHERS], incomplete)


def listed_data(incomplete: str) -> list[str]:
    """What `clbench data list` takes."""
    return sorted([*data_sets(incomplete), *_starting([PROBES], incomplete)])


def runs(incomplete: str) -> list[str]:
    """Run directories and collected result files: those in ``runs``, or where the text leads to."""
    folder, slash, beginning = incomplete.rpartition("/")
    if incomplete:
        return _run_directories(folder + slash, beginning)
    return _run_directories(f"{RUNS}/", "")


def assignments(ctx: typer.Context, incomplete: str) -> list[Item]:
    """Settings for ``--set`` as ``key=value``: all values that the type lists, or the default."""
    from clbench.core.hyperparameters import meaning

    key, equals, _ = incomplete.partition("=")
    found: list[Item] = []
    for section in _sections(ctx, key):
        for name, parameter in section.dotted().items():
            if name == key or (name.startswith(key) and not equals):
                found += [(f"{name}={value}", meaning(parameter)) for value in _values(parameter)]
    return [item for item in dict.fromkeys(found) if item[0].startswith(incomplete)]


def _sections(ctx: typer.Context, key: str) -> Iterator[Section]:
    """The sections that may hold a key; methods and benchmarks are imported only if need be."""
    from clbench.cli.reference import Section, options_section, run_sections

    yield from run_sections()
    with suppress(ClbenchError):  # of a broken plug-in, which the command itself will name
        for name in _named(ctx, "method") if _concerns("method.", key) else ():
            yield Section("method", "", dict(registry.method(name).schema()))
        for name in _named(ctx, "benchmark") if _concerns("benchmark.", key) else ():
            yield options_section(registry.benchmark(name))


def _concerns(prefix: str, key: str) -> bool:
    return key.startswith(prefix) or prefix.startswith(key)


def _named(ctx: typer.Context, option: str) -> list[str]:
    """The methods or benchmarks that the command line names and the registry knows."""
    text = str(ctx.params.get(option) or ctx.params.get(f"{option}s") or CHOSEN[option])
    known = registry.method_names() if option == "method" else registry.benchmark_names()
    return known if text == "all" else [name for name in text.split(",") if name in known]


def _values(parameter: Parameter) -> list[str]:
    """The values that a type lists, or the default, or an empty text."""
    listed = list(dict.fromkeys(_listed(parameter.annotation)))
    if listed:
        return listed
    default = parameter.default
    if default is None or isinstance(default, bool | int | float):
        return [json.dumps(default)]
    return [default if isinstance(default, str) and _is_plain(default) else ""]


def _listed(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) is Annotated:
        yield from _listed(get_args(annotation)[0])
    else:
        for part in get_args(annotation):
            yield from _listed(part)


def _starting(known: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]


def _next_of_list(known: Iterable[str], incomplete: str) -> list[str]:
    """Completions of the last of several names with commas between, those before it left out."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _starting(known, last) if name not in taken]


def _is_plain(text: str) -> bool:
    """Whether a shell takes a text as one word as it stands."""
    return bool(text) and shlex.quote(text) == text


def _run_directories(folder: str, beginning: str) -> list[str]:
    """Run directories and result files below a folder, in entries with such a beginning.

    Args:
        folder: empty, or ends in a slash.
        beginning: of the names right inside the folder.
    """
    found: list[str] = []
    waiting = deque([(folder, 0)])
    for _ in range(VISITED):
        if not waiting:
            break
        current, depth = waiting.popleft()
        for entry in _entries(current):
            if depth == 0 and not entry.name.startswith(beginning):
                continue
            path = f"{current}{entry.name}"
            if not entry.is_dir():
                found += [path] if current.endswith("results/") and path.endswith(".json") else []
            elif Path(entry.path, "result.json").is_file():
                found.append(path)
            elif depth < DEPTH:
                waiting.append((f"{path}/", depth + 1))
    return sorted(found)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, but for hidden names and those a shell would have to quote."""
    try:
        with os.scandir(Path(folder).expanduser()) as entries:
            return [e for e in entries if not e.name.startswith(".") and _is_plain(e.name)]
    except (OSError, RuntimeError):  # RuntimeError: the home folder is unknown
        return []
