"""From a grid of settings to cells: every run as a command line, with its run directory."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.rundir.directory import RunDirectory, run_path
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.resuming import require_same_source
from clbench.inputs import require_inputs
from clbench.launch.cells import Cell
from clbench.launch.plan import Planned, plan

AXES = ("benchmarks", "backbones", "orders", "grid")
"""Keys that a file for a sweep has beyond those for a comparison."""


def sweep(
    tree: Mapping[str, Any],
    methods: Sequence[str] | str | None = None,
    seeds: Sequence[int] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> list[Planned]:
    """The validated settings of every run of a sweep: of all combinations.

    Args:
        tree: content of a configuration file, which may have four keys beside those of a
            comparison: lists of ``benchmarks``, of ``backbones`` (as ``--backbone`` takes them) and
            of ``orders`` (``benchmark.order``), and ``grid``, which maps dotted keys to lists of
            values, or is a list of such mappings; each may have the keys ``methods`` and ``seeds``,
            with those that it holds for.
        methods: see `plan`; of a mapping that names its own, those that are among these.
        seeds: see `plan`; the same holds.
        overrides: dotted keys to values, for every run.
        quick: smoke runs.

    Raises:
        ClbenchError: all problems of all runs, or no run is left.
    """
    rest = dict(tree)
    found = {key: rest.pop(key, None) for key in AXES}
    lists = [_listed(key, found[key]) for key in AXES[:3]]
    planned: list[Planned] = []
    problems: dict[str, None] = {}
    for name in [] if methods is None or isinstance(methods, str) else methods:
        registry.method(name)  # one that no mapping names would not be looked at below
    for block, benchmark, backbone, order in itertools.product(_blocks(found["grid"]), *lists):
        axes = {key: values for key, values in block.items() if key not in ("methods", "seeds")}
        of_methods, of_seeds = _chosen(block, "methods", methods), _chosen(block, "seeds", seeds)
        if [] in (of_methods, of_seeds):
            continue
        for point in _points(axes):
            given = {
                **({} if backbone is None else config.backbone_settings(backbone)),
                **({} if order is None else {"benchmark.order": order}),
                **(overrides or {}),
                **point,
            }
            try:
                planned += plan(
                    benchmark,
                    of_methods,
                    of_seeds,
                    config_file=rest,
                    overrides=given,
                    quick=quick,
                )
            except ClbenchError as error:
                problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise ClbenchError("\n".join(problems))
    if not planned:
        raise ClbenchError("no run of the grid has the methods and seeds asked for")
    return planned


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Dotted keys to lists of values, from texts like those of ``--set``.

    >>> parse_grid(["method.rank=8,16", "train.lr=1e-4,3e-4"])
    {'method.rank': [8, 16], 'train.lr': [0.0001, 0.0003]}
    >>> parse_grid(["train.betas=[0.9,0.99],[0.9,0.999]"])
    {'train.betas': [[0.9, 0.99], [0.9, 0.999]]}

    Raises:
        ClbenchError: no equals sign, or values that are not YAML.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ClbenchError(f"--grid {text!r}: expected key=value,value, e.g. method.rank=8,16")
        for value in _split(values):
            grid.setdefault(key.strip(), []).extend(
                config.parse_assignments([f"{key}={value}"]).values()
            )
    return grid


def make_cells(planned: Sequence[Planned], runs_dir: Path) -> list[tuple[Cell, Planned]]:
    """Every run as a command line, each once, beside what it was made of.

    Args:
        planned: validated settings.
        runs_dir: folder of all runs.
    """
    cells: dict[str, tuple[Cell, Planned]] = {}
    varying = _varying([settings for settings, _ in planned])
    for settings, cls in planned:
        path = run_path(runs_dir, settings)
        key = path.relative_to(runs_dir).as_posix()
        if key in cells:
            continue
        dotted = _dotted(settings)
        cell = Cell(
            command=command_of(settings, runs_dir),
            path=path,
            key=key,
            benchmark=settings.benchmark.name,
            method=settings.method.name,
            seed=settings.seed,
            backbone=settings.backbone.model,
            variant=", ".join(f"{n}={_text(dotted[n])}" for n in varying if n in dotted),
        )
        cells[key] = cell, (settings, cls)
    return list(cells.values())


def command_of(settings: RunSettings, runs_dir: Path) -> tuple[str, ...]:
    """The arguments of `clbench` that resolve to exactly these settings.

    They name what differs from the recipes.

    Raises:
        ClbenchError: there are none, because a method cannot be found by its name.
    """
    names = settings.method.name, settings.benchmark.name
    usual = _usual(*names, settings.quick)
    differing = {k: v for k, v in _dotted(settings).items() if usual.get(k, ...) != v}
    options = ["--method", names[0], "--benchmark", names[1], "--seed", str(settings.seed)]
    for key, value in differing.items():
        options += ["--set", f"{key}={_text(value)}"]
    options += ["--quick"] if settings.quick else []
    return ("run", *options, "--runs-dir", str(runs_dir))


def result_of(cell: Cell, planned: Planned, known: dict[str, Inputs]) -> RunResult | None:
    """The finished result of a cell; None if something is left to do.

    Args:
        cell: the run.
        planned: its settings and method.
        known: weights and images that were looked at for other cells.

    Raises:
        ClbenchError: it is damaged, or was made with another source of the method or other inputs.
    """
    settings, cls = planned
    result = RunDirectory(cell.path).result()
    if result is None:
        return None
    require_same_source(result, cls, cell.path)
    if result.status == "partial":
        return None
    require_inputs(settings, result, cell.path, known=known)
    return result


def as_begun(cell: Cell) -> Cell:
    """The cell with the threads that its interrupted run had: its numbers depend on them."""
    result = RunDirectory(cell.path).result()
    return cell if result is None else replace(cell, threads=result.provenance.get("threads"))


@functools.lru_cache(maxsize=256)
def _usual(method: str, benchmark: str, quick: bool) -> dict[str, Any]:
    """Settings by dotted key of a run for which nothing is set."""
    return _dotted(config.resolve(method, benchmark, quick=quick)[0])


def _dotted(settings: RunSettings) -> dict[str, Any]:
    """What ``--set`` can set, by dotted key."""
    content = settings.model_dump(mode="json")
    method, benchmark = content.pop("method"), content.pop("benchmark")
    for key in ("seed", "quick"):
        del content[key]
    sections = {
        "method": method["params"],
        "benchmark": benchmark["options"],
        **{key: value for key, value in content.items() if key in config.SECTIONS},
    }
    flat = {key: value for key, value in content.items() if key not in config.SECTIONS}
    return flat | {f"{n}.{key}": v for n, inner in sections.items() for key, v in inner.items()}


def _varying(settings: Sequence[RunSettings]) -> list[str]:
    """Keys in which runs of the same method, or on the same benchmark, differ."""
    seen: dict[tuple[str, str], set[str]] = {}
    for one in settings:
        for key, value in _dotted(one).items():
            name = one.benchmark.name if key.startswith("benchmark.") else one.method.name
            seen.setdefault((name, key), set()).add(_text(value))
    return list(dict.fromkeys(key for (_, key), values in seen.items() if len(values) > 1))


def _blocks(grid: Any) -> list[dict[str, Any]]:
    blocks = grid if isinstance(grid, list) else [{} if grid is None else grid]
    for block in blocks:
        if not isinstance(block, Mapping) or not all(
            isinstance(values, list | tuple) and values for values in block.values()
        ):
            raise ClbenchError(
                "'grid' must map dotted keys to lists of values, e.g. {method.rank: [8, 16]}, or "
                "be a list of such mappings"
            )
    return [dict(block) for block in blocks]


def _chosen(block: Mapping[str, Any], key: str, asked: Any) -> Any:
    """Methods or seeds of a mapping: its own of those asked for, or these if it has none."""
    own = block.get(key)
    if own is None:
        return asked
    return own if asked in (None, "all") else [value for value in own if value in asked]


def _points(block: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(block, values, strict=True)) for values in itertools.product(*block.values())]


def _listed(name: str, value: Any) -> list[Any]:
    """Values of an axis; one None where nothing is given."""
    if value is None:
        return [None]
    values = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not values:
        raise ClbenchError(f"{name!r} must be a list, got {value!r}")
    return list(dict.fromkeys(values))


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _text(value: Any) -> str:
    """A value so that ``--set`` reads it as the same."""
    if isinstance(value, str) and config.parse_assignments([f"k={value}"]) == {"k": value}:
        return value
    return json.dumps(value)
