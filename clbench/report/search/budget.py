"""The best score to expect of n settings, in panels of a few methods with their names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clbench.report.figures.style import (
    REFERENCE_LINE,
    WIDTH,
    line_styles,
    new_figure,
    short_labels,
)
from clbench.report.search.measures import expected_best
from clbench.report.search.panels import OTHERS, joined
from clbench.report.search.read import SearchRecord
from clbench.report.search.tables import TITLES

GROUP: Final = 6
"""Methods named in a panel."""
_COLUMNS: Final = 3
_HEIGHT: Final = 2.1
_GAP: Final = 0.085
"""Distance of two names, as a share of the panel."""


def draw_budget(record: SearchRecord) -> Figure | None:
    """Expected best against the number of settings; the methods of other panels are grey.

    Methods are sorted by what the whole budget gives, so that neighbours share a panel; upper
    bounds are left out.
    """
    curves = {
        method.title: [
            100 * expected_best([trial.score for trial in method.trials], n)
            for n in range(1, (len(method.trials) if method.searched else record.budget) + 1)
        ]
        for method in record.ranked
        if any(trial.score is not None for trial in method.trials)
    }
    if not curves:
        return None
    names = sorted(curves, key=lambda name: -curves[name][-1])
    groups = [names[i : i + GROUP] for i in range(0, len(names), GROUP)]
    columns = min(_COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = new_figure(WIDTH * columns / _COLUMNS + 0.4, _HEIGHT * rows, wspace=0.03, hspace=0.03)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    values = [value for curve in curves.values() for value in curve]
    low, high = min(values), max(values)
    room = 0.04 * max(high - low, 1.0)
    budget = max(map(len, curves.values()))
    axes[0][0].set(xscale="log", ylim=(low - room, high + room), xlim=(0.95, 1.05 * budget))
    axes[0][0].set_xticks(ticks := _doublings(budget), list(map(str, ticks)))
    axes[0][0].minorticks_off()
    still = record.zero_shot.get(record.criterion)
    for i, ax in enumerate(axes.flat):
        if i >= len(groups):
            ax.set_axis_off()
            continue
        if still is not None and low - room < 100 * still < high + room:
            ax.axhline(100 * still, **REFERENCE_LINE)
        rest = [list(enumerate(c, start=1)) for n, c in curves.items() if n not in groups[i]]
        if rest:
            ax.plot(*zip(*joined(rest), strict=True), **OTHERS)
        _named(ax, {name: curves[name] for name in groups[i]})
        below = i + columns >= len(groups)
        ax.tick_params(labelbottom=below)
        ax.set_xlabel("settings tried" if below else "")
    for row in axes:
        row[0].set_ylabel(f"{TITLES.get(record.criterion, record.criterion)}, expected best, %")
    return figure


def _named(ax: Axes, curves: dict[str, list[float]]) -> None:
    """Draw curves with their names beside the panel, apart from each other."""
    low, high = ax.get_ylim()
    ends = [(curve[-1] - low) / (high - low) for curve in curves.values()]
    places = spaced(ends, _GAP)
    places = [place - max(0.0, max(places) - 1) - min(0.0, min(places)) for place in places]
    labels = short_labels(list(curves), 16)
    for curve, style, label, place in zip(
        curves.values(), line_styles(len(curves)), labels, places, strict=True
    ):
        ax.plot(range(1, len(curve) + 1), curve, color=style.colour, linestyle=style.dash)
        ax.annotate(
            label,
            (len(curve), curve[-1]),
            (1.07, place),
            textcoords="axes fraction",
            color=style.colour,
            size=6.5,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": style.colour,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 1,
            },
        )


def _doublings(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length())]


def spaced(positions: Sequence[float], gap: float) -> list[float]:
    """Positions as near to the given ones as an order and a gap between neighbours allow.

    Where some are too close they are spread around the mean of where they belong.

    Args:
        positions: where things belong, in any order.
        gap: smallest distance of two neighbours.

    >>> spaced([0.0, 0.1, 5.0], 1.0)
    [-0.45, 0.55, 5.0]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    # Blocks of neighbours that touch: the sum of where their first would be, and their number.
    blocks: list[tuple[float, int]] = []
    for i in order:
        total, count = positions[i], 1
        while blocks and total / count < blocks[-1][0] / blocks[-1][1] + blocks[-1][1] * gap:
            before, size = blocks.pop()
            total, count = before + total - count * size * gap, size + count
        blocks.append((total, count))
    starts = [total / count + k * gap for total, count in blocks for k in range(count)]
    placed = dict(zip(order, starts, strict=True))
    return [placed[i] for i in range(len(positions))]
