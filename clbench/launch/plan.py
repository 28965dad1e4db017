"""Which runs a comparison consists of, and how long those that are left will take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.settings import RunSettings

SEEDS = (0, 1, 2)
MOST_SEEDS = 1000

Planned = tuple[RunSettings, type[Method]]


def plan(
    benchmark: str | None = None,
    methods: Sequence[str] | str | None = None,
    seeds: Sequence[int] | None = None,
    *,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> list[Planned]:
    """The validated settings of all runs of a comparison: all methods with a seed, then the next.

    A configuration file may have two keys more than that of a single run: ``methods``, a list of
    names or a mapping from names to hyper-parameters, and ``seeds``, a list or a text like ``0-4``.

    Args:
        benchmark: name; that of the file, or ``mini``, if None.
        methods: names, or ``all``; those of the file, or all, if None.
        seeds: training seeds; those of the file, or 0, 1 and 2, if None.
        config_file: YAML file with a configuration tree.
        overrides: dotted keys to values, for every run.
        quick: smoke runs.

    Raises:
        ClbenchError: an invalid configuration, or a seed among the overrides.
    """
    if "seed" in (overrides or {}):
        raise ClbenchError("a comparison takes its seeds from --seeds, not from --set seed")
    tree = config.read_config(config_file) if config_file else {}
    found, own = _methods_of(tree)
    wanted = found if methods is None else methods
    names = registry.method_names() if wanted == "all" else list(dict.fromkeys(wanted))
    found_seeds = _seeds_of(tree)
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


class Countdown:
    """Says which run of a comparison is next, and about how long all that are left will take.

    A run is expected to take as long as earlier runs of its method did, or as earlier runs of any
    method if there were none.

    Args:
        methods: the method of every run, in order.
        complete: indices of runs that are complete already, and so take no time.
    """

    def __init__(self, methods: Sequence[str], complete: Sequence[int] = ()) -> None:
        self._methods = methods
        self._complete = frozenset(complete)
        self._seconds: dict[str, list[float]] = {}
        self._next = 0

    def heading(self) -> str:
        """One line on the next run.

        >>> countdown = Countdown(["lora", "nusa", "lora"])
        >>> countdown.heading()
        'run 1 of 3'
        >>> countdown.finished(60)
        >>> countdown.heading()
        'run 2 of 3, about 2 min left'
        """
        text = f"run {self._next + 1} of {len(self._methods)}"
        left = self.remaining()
        return text if left is None else f"{text}, about {_rough(left)} left"

    def finished(self, seconds: float) -> None:
        """The next run is over and took so many seconds."""
        if self._next not in self._complete:
            self._seconds.setdefault(self._methods[self._next], []).append(seconds)
        self._next += 1

    def remaining(self) -> float | None:
        """Expected seconds of all runs that are left; None as long as nothing is known."""
        left = [
            method
            for i, method in enumerate(self._methods)
            if i >= self._next and i not in self._complete
        ]
        known = [second for seconds in self._seconds.values() for second in seconds]
        if not left or not known:
            return None
        return sum(mean(self._seconds.get(method, known)) for method in left)


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


def _seeds_of(tree: dict[str, Any]) -> Sequence[int]:
    """Take a file's seeds out of its tree."""
    single, seeds = tree.pop("seed", None), tree.pop("seeds", None)
    if seeds is None:
        seeds = SEEDS if single is None else [single]
    if isinstance(seeds, int | str):
        return parse_seeds(str(seeds), "seeds")
    if not isinstance(seeds, list | tuple) or not all(type(seed) is int for seed in seeds):
        raise ClbenchError(f"'seeds' must be whole numbers, or a text like 0-4, got {seeds!r}")
    return seeds


def _rough(seconds: float) -> str:
    """A duration as precise as an estimate is.

    >>> [_rough(seconds) for seconds in (4, 75, 5400)]
    ['1 min', '1 min', '1.5 h']
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
