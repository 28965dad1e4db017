"""Which methods stand out where there are too many to tell all of them apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clbench.core.results.result import RunResult

MANY = 12
"""Most methods that all stand out."""
BASELINES = "Baselines"
"""The family whose methods all stand out: what others are compared with."""


def default_choice(results: Iterable[RunResult]) -> frozenset[str]:
    """Names of the methods that stand out: the baselines, and the best of every other family.

    The best has the highest Last, mean over all its runs. Methods without a family are one.
    A few methods stand out all.
    """
    lasts: dict[str, list[float]] = {}
    families: dict[str, str] = {}
    for result in results:
        last = result.summary["last"]
        lasts.setdefault(result.method.name, []).append(-1.0 if last is None else last)
        families[result.method.name] = result.method.family
    if len(lasts) <= MANY:
        return frozenset(lasts)
    members: dict[str, list[str]] = {}
    for name in sorted(lasts):
        members.setdefault(families[name], []).append(name)
    best = [max(names, key=lambda name: float(np.mean(lasts[name]))) for names in members.values()]
    return frozenset([*best, *members.get(BASELINES, ())])
