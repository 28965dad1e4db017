"""Whether methods run out of room after 50, 100 and 200 tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from clbench.core.results.metrics import Array
from clbench.studies.analysis import Row, Table
from clbench.studies.cells import difference, gain, level
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.runs import Runs

LENGTHS: Final = (50, 100, 200)
"""Numbers of learned tasks that are looked at."""
WINDOW: Final = 50
"""Tasks in a mean over the newest or the oldest."""
ENCODERS: Final = ("text", "vision")
BASELINE: Final = "nusa"
POINTS: Final = 20
"""Of a curve."""


def newest(size: int, learned: int) -> Array:
    """Weights of the newest tasks, each right after it was learned: ``(size, size)``."""
    weights = np.zeros((size, size))
    chosen = np.arange(max(0, learned - WINDOW), learned)
    weights[chosen, chosen] = 1 / len(chosen)
    return weights


def unseen(size: int, learned: int) -> Array:
    """Weights of the same tasks, each right before it was learned; the first has no such cell."""
    weights = np.zeros((size, size))
    chosen = np.arange(max(1, learned - WINDOW), learned)
    weights[chosen - 1, chosen] = 1 / max(1, len(chosen))
    return weights


def oldest(size: int, learned: int) -> Array:
    """Weights of the oldest tasks, after all that were learned."""
    weights = np.zeros((size, size))
    count = min(WINDOW, learned)
    weights[learned - 1, :count] = 1 / count
    return weights


def every(size: int, learned: int) -> Array:
    """Weights of all tasks that were learned, after all that were learned."""
    weights = np.zeros((size, size))
    weights[learned - 1, :learned] = 1 / learned
    return weights


MEANS: Final[dict[str, tuple[str, Callable[[int, int], Array]]]] = {
    "newest": ("Newest", newest),
    "unseen": ("Unseen", unseen),
    "oldest": ("Oldest", oldest),
    "every": ("All learned", every),
}


def table(runs: Runs) -> Table:
    """Rank left, and what training changed, by method and number of tasks."""
    rows: list[Row] = []
    for method in runs.values("method"):
        own = runs.where(method=method)
        size = _size(own)
        for learned in lengths(size):
            left = [rank_left(own, encoder, learned) for encoder in ENCODERS]
            gains = [gain(own, weights(size, learned)) for _, weights in MEANS.values()]
            rows.append((method, learned, *left, *gains))
    header = ("Method", "Tasks", "Left, text", "Left, vision")
    notes = (
        "Left: share of the directions of an attention weight outside those that hold 95 % of its "
        "energy, in percent; empty where a method's weights are not known. The other columns are "
        f"percent points above zero-shot on the same images: the last {WINDOW} tasks right after "
        "each was learned (Newest) and right before (Unseen), the first "
        f"{WINDOW} tasks (Oldest) and all tasks (All learned) after the number of tasks given.",
    )
    return Table((*header, *(title for title, _ in MEANS.values())), rows, notes)


def draw(runs: Runs) -> Figure:
    """Rank left and changes of accuracy over the number of tasks, a curve per method."""
    panels = []
    methods = runs.values("method")
    for encoder in ENCODERS:
        curves = []
        for method in methods:
            own = runs.where(method=method)
            x = _points(_size(own), 0)
            left = [rank_left(own, encoder, t) for t in x]
            known = [math.nan if value is None else value for value in left]
            curves.append(Curve(method, x, known, marks=False))
        panels.append(Panel(f"Rank left, {encoder}", "tasks learned", "%", curves))
    for title, weights in MEANS.values():
        curves = []
        for method in methods:
            own = runs.where(method=method)
            size = _size(own)
            x = _points(size, 1)
            y = [_plain_gain(own, weights(size, t)) for t in x]
            curves.append(Curve(method, x, y, marks=False))
        panels.append(Panel(title, "tasks learned", "points above zero-shot", curves, level=0.0))
    return draw_curves(panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Every mean by method and number of tasks, its changes, and its differences to NuSA-CL.

    ``newest nusa 50`` is an accuracy, ``Δnewest nusa 50`` what it is above zero-shot,
    ``newest nusa 50 to 200`` how that changes, and ``newest lora 50 minus nusa`` a difference.
    ``left text nusa 50`` is the rank left; ``0`` stands for before training.
    """
    found = {}
    base = runs.where(method=BASELINE)
    for method in runs.values("method"):
        own = runs.where(method=method)
        size = _size(own)
        rows = lengths(size)
        for encoder in ENCODERS:
            for learned in (0, *rows):
                left = rank_left(own, encoder, learned)
                if left is not None:
                    found[f"left {encoder} {method} {learned}"] = f"{left:.1f}"
        for name, (_, weights) in MEANS.items():
            for learned in rows:
                here = weights(size, learned)
                found[f"{name} {method} {learned}"] = str(level(own, here))
                found[f"Δ{name} {method} {learned}"] = str(gain(own, here))
                if method != BASELINE and base and _size(base) == size:
                    key = f"{name} {method} {learned} minus {BASELINE}"
                    found[key] = str(difference(own, base, here))
            for last in rows[1:]:
                change = weights(size, last) - weights(size, rows[0])
                found[f"{name} {method} {rows[0]} to {last}"] = str(gain(own, change))
    return found


def lengths(size: int) -> list[int]:
    """The numbers of learned tasks that a run of this many tasks has rows for.

    >>> lengths(200), lengths(2)
    ([50, 100, 200], [2])
    """
    return [n for n in LENGTHS if n <= size] or [size]


def rank_left(runs: Runs, encoder: str, learned: int) -> float | None:
    """Mean share of directions outside the principal ones, in percent; None where not known."""
    found = []
    for run in runs:
        record = run.result.effective_rank
        value = None if record is None else record.values[encoder][learned]
        if value is None:
            return None
        found.append(100 * (1 - value))
    return sum(found) / len(found)


def _size(runs: Runs) -> int:
    return len(runs[0].result.benchmark.tasks)


def _points(size: int, first: int) -> list[int]:
    spaced = np.linspace(first, size, min(size, POINTS) + 1).round().astype(int)
    return sorted(set(spaced.tolist()))


def _plain_gain(runs: Runs, weights: Array) -> float:
    """What `gain` finds, without its interval."""
    values = [np.asarray(run.result.matrix.values) for run in runs]
    return 100 * float(np.mean([(weights * (v[1:] - v[0])).sum() for v in values]))
