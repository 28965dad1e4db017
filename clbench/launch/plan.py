"""Which runs a comparison consists of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.settings import RunSettings

SEEDS, QUICK_SEEDS = (0, 1, 2), (0,)
"""Training seeds if none are given. More of them would tell nothing more of smoke runs."""
MOST_SEEDS = 1000

Planned = tuple[RunSettings, type[Method]]


def plan(
    benchmark: str | None = None,
    methods: Sequence[str] | str | None = None,
    seeds: Sequence[int] | None = None,
    *,
    config_file: Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> list[Planned]:
    """The validated settings of all runs of a comparison: all methods with a seed, then the next.

    A configuration file may have two keys more than that of a single run: ``methods``, a list of
    names or a mapping from names to hyper-parameters, and ``seeds``, a list or a text like ``0-4``.

    Args:
        benchmark: name; that of the file, or ``mini``, if None.
        methods: names, or ``all``; those of the file, or all, if None.
        seeds: training seeds; those of the file, or 0, 1 and 2 (quick: 0), if None.
        config_file: YAML file with a configuration tree, or its content.
        overrides: dotted keys to values, for every run.
        quick: smoke runs.

    Raises:
        ClbenchError: an invalid configuration, or a seed among the overrides.
    """
    if "seed" in (overrides or {}):
        raise ClbenchError("a comparison takes its seeds from --seeds, not from --set seed")
    given = config_file or {}
    tree = config.read_config(given) if isinstance(given, Path) else dict(given)
    found, own = _methods_of(tree)
    wanted = found if methods is None else methods
    names = registry.method_names() if wanted == "all" else list(dict.fromkeys(wanted))
    found_seeds = _seeds_of(tree, QUICK_SEEDS if quick else SEEDS)
    return [
        config.resolve(
            name,
            benchmark,
            config={**tree, "method": own[name]} if name in own else tree,
            overrides={**(overrides or {}), "seed": seed},
            quick=quick,
        )
        for seed in dict.fromkeys(found_seeds if seeds is None else seeds)
        for name in names
    ]


def parse_seeds(text: str, name: str = "--seeds") -> list[int]:
    """Seeds from numbers and ranges, both ends included.

    >>> parse_seeds("0,2,5-7")
    [0, 2, 5, 6, 7]

    Args:
        text: numbers and ranges with commas between.
        name: what messages call the text.

    Raises:
        ClbenchError: something else, a range that runs backwards, or too many seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        if match is None:
            raise ClbenchError(
                f"{name} {text!r}: expected whole numbers and ranges, e.g. 0,1,2 or 0-4"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ClbenchError(f"{name} {text!r}: {part.strip()} runs backwards")
        if len(seeds) + last - first >= MOST_SEEDS:
            raise ClbenchError(f"{name} {text!r}: more than {MOST_SEEDS} of them")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


def _methods_of(tree: dict[str, Any]) -> tuple[Sequence[str] | str, dict[str, dict[str, Any]]]:
    """Take a file's choice of methods out of its tree.

    Returns:
        Names or ``all``, and the ``method`` section of those methods that have one of their own.
        A section without a name stays in the tree and is every method's.
    """
    methods, section = tree.pop("methods", None), tree.get("method")
    if isinstance(section, str):
        section = {"name": section}
    if isinstance(section, dict) and isinstance(section.get("name"), str):
        if methods is not None:
            raise ClbenchError("a configuration has either 'methods' or a 'method' with a name")
        del tree["method"]
        return [section["name"]], {section["name"]: section}
    if methods is None or methods == "all":
        return "all", {}
    if isinstance(methods, str):
        methods = [name.strip() for name in methods.split(",")]
    given = dict.fromkeys(methods) if isinstance(methods, list) else methods
    if not isinstance(given, dict) or not all(
        isinstance(name, str) and isinstance(params, dict | None) for name, params in given.items()
    ):
        raise ClbenchError(
            "'methods' must be a list of names, or a mapping from names to hyper-parameters"
        )
    shared = section or {}
    return list(given), {n: {**shared, **params} for n, params in given.items() if params}


def _seeds_of(tree: dict[str, Any], default: Sequence[int]) -> Sequence[int]:
    """Take a file's seeds out of its tree."""
    single, seeds = tree.pop("seed", None), tree.pop("seeds", None)
    if seeds is None:
        seeds = default if single is None else [single]
    if isinstance(seeds, int | str):
        return parse_seeds(str(seeds), "seeds")
    if not isinstance(seeds, list | tuple) or not all(type(seed) is int for seed in seeds):
        raise ClbenchError(f"'seeds' must be whole numbers, or a text like 0-4, got {seeds!r}")
    return seeds
