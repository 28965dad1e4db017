"""The critical-difference diagram: average ranks, and which methods do not differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure

from clbench.report.figures.style import COLOURS, INK, NARROW, new_figure, short_labels
from clbench.report.ranks.tables import Ranking

_LINE: Final = 0.17
"""Inches of a method."""
_COLUMN: Final = 0.09
"""Inches of a bar that joins methods."""


def draw_ranks(ranking: Ranking) -> Figure:
    """A line per method, the best first; bars beside them join those that do not differ.

    The scale above the methods is as long as the critical difference.
    """
    places = bar_columns(ranking.groups)
    bars = _COLUMN * (max(places, default=0) + 1)
    count = len(ranking.methods)
    figure = new_figure(NARROW + bars, _LINE * (count + 1) + 0.6, wspace=0.01)
    ax, side = figure.subplots(1, 2, sharey=True, width_ratios=[NARROW - 1, bars])
    lines = range(count)
    ax.hlines(lines, 1, ranking.ranks, color=COLOURS[0], linewidth=0.8, alpha=0.4)
    ax.plot(ranking.ranks, lines, ls="", marker="o", color=COLOURS[0])
    ax.set_yticks(lines, short_labels(ranking.methods, 36))
    ax.set_ylim(count - 0.4, -1.6)
    ax.set_xlim(1 - 0.02 * count, max(count, 1 + ranking.difference) + 0.02 * count)
    ax.set_xlabel("average rank over tasks (1 is the best)")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    end = 1 + ranking.difference
    ax.plot([1, end], [-1, -1], color=INK, marker="|", markersize=5)
    ax.text(end, -1, f"  critical difference {ranking.difference:.2f}", va="center", size=7)
    for (first, last), column in zip(ranking.groups, places, strict=True):
        side.plot([column] * 2, [first - 0.25, last + 0.25], color=INK, linewidth=2)
    side.set_xlim(-0.7, max(places, default=0) + 0.7)
    side.set_axis_off()
    return figure


def bar_columns(groups: Sequence[tuple[int, int]]) -> list[int]:
    """The column of every bar, so that no two of a column touch.

    >>> bar_columns([(0, 2), (1, 3), (3, 5)])
    [0, 1, 0]
    """
    ends: list[int] = []
    columns = []
    for first, last in groups:
        free = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        columns.append(free)
    return columns
