"""Where in the spectrum of the weights an update should lie."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping
from typing import Final

from matplotlib.figure import Figure

from clbench.studies.analysis import Row, Table
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.matched import Crossing, common_levels, find_crossing
from clbench.studies.runs import Runs, tenths

LR: Final = "train.lr"
METRICS: Final = {"transfer": "Transfer", "last": "Last"}
ALL: Final = ("learned", "transfer", "average", "last")
LEVELS: Final = {"low": 0.25, "mid": 0.5, "high": 0.75}
"""Where the levels of Learned stand in the range that all spaces reach."""


def table(runs: Runs) -> Table:
    """All runs, and what is read off between them at equal Learned."""
    rows: list[Row] = []
    for space, points in _axes(runs).items():
        for one in points:
            rate = f"{one[0].setting(LR):g}"
            estimates = [one.estimate(metric) for metric in ("learned", *METRICS)]
            rows.append((space, rate, *estimates, one.mean("forgetting")))
    for _, level, crossings in _readings(runs):
        for space, found in crossings.items():
            read = [found.estimate(metric) for metric in METRICS]
            rows.append((space, "between", level, *read, found.plain("forgetting")))
    header = ("Space", "Learning rate", "Learned", *METRICS.values(), "Forgetting")
    notes = (
        "Between: on the straight line between two neighbouring learning rates, where Learned has "
        "the same value for all three spaces.",
    )
    return Table(header, rows, notes)


def draw(runs: Runs) -> Figure:
    """Transfer, Last and Forgetting against Learned, a curve per space."""
    axes = _axes(runs)
    learned = {space: [one.mean("learned") for one in points] for space, points in axes.items()}
    before = [value for value in runs[0].result.accuracy.values[0] if value is not None]
    levels = {
        "transfer": 100 * statistics.fmean(before[1:]),
        "last": 100 * statistics.fmean(before),
    }
    panels = [
        Panel(
            title,
            "Learned, %",
            "%",
            [
                Curve(space, learned[space], [one.estimate(metric) for one in points])
                for space, points in axes.items()
            ],
            level=levels[metric],
        )
        for metric, title in METRICS.items()
    ]
    forgotten = [
        Curve(space, learned[space], [one.mean("forgetting") for one in points])
        for space, points in axes.items()
    ]
    panels.append(Panel("Forgetting", "Learned, %", "%", forgotten))
    return draw_curves(panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Metrics at equal Learned, and of single runs.

    ``learned mid`` is the middle level, ``last tail mid`` what the tail keeps there, ``Δlast
    tail-top mid`` that minus the top. ``last tail 0.001`` is a run; ``lr tail`` is the learning
    rate with the highest Avg, ``last tail`` and ``Δlast tail-top`` are of these.
    """
    axes = _axes(runs)
    return _at_equal_learned(runs) | _of_single_runs(axes) | _of_best_rates(axes)


def _at_equal_learned(runs: Runs) -> dict[str, str]:
    found = {}
    for name, level, crossings in _readings(runs):
        found[f"learned {name}"] = tenths(level)
        for space, one in crossings.items():
            found[f"forgetting {space} {name}"] = tenths(one.plain("forgetting"))
            for metric in METRICS:
                found[f"{metric} {space} {name}"] = str(one.estimate(metric))
        for a, b in itertools.combinations(crossings, 2):
            forgetting = crossings[a].plain("forgetting") - crossings[b].plain("forgetting")
            found[f"Δforgetting {a}-{b} {name}"] = tenths(forgetting, signed=True)
            for metric in METRICS:
                difference = crossings[a].difference(crossings[b], metric)
                found[f"Δ{metric} {a}-{b} {name}"] = str(difference)
    return found


def _of_single_runs(axes: Mapping[str, list[Runs]]) -> dict[str, str]:
    found = {}
    for space, points in axes.items():
        for one in points:
            rate = one[0].setting(LR)
            found[f"forgetting {space} {rate:g}"] = tenths(one.mean("forgetting"))
            for metric in ALL:
                found[f"{metric} {space} {rate:g}"] = str(one.estimate(metric))
    return found


def _of_best_rates(axes: Mapping[str, list[Runs]]) -> dict[str, str]:
    best = {s: max(points, key=lambda one: one.mean("average")) for s, points in axes.items()}
    found = {}
    for space, one in best.items():
        found[f"lr {space}"] = f"{one[0].setting(LR):g}"
        for metric in ALL:
            found[f"{metric} {space}"] = str(one.estimate(metric))
    for a, b in itertools.combinations(best, 2):
        for metric in ALL:
            found[f"Δ{metric} {a}-{b}"] = str(best[a].difference(best[b], metric))
    return found


def _axes(runs: Runs) -> dict[str, list[Runs]]:
    """For each space its runs by learning rate."""
    return {
        space: own.along(LR)
        for space in runs.values("method.space")
        if (own := runs.where(method__space=space))
    }


def _readings(runs: Runs) -> Iterator[tuple[str, float, dict[str, Crossing]]]:
    """Each level of Learned that all spaces reach: its name, itself, and where they reach it."""
    axes = _axes(runs)
    levels = common_levels(list(axes.values()), list(LEVELS.values()))
    for name, level in zip(LEVELS, levels, strict=False):
        found = {space: find_crossing(points, level) for space, points in axes.items()}
        yield name, level, {space: one for space, one in found.items() if one is not None}
