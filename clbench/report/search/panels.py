"""Small multiples: one panel per method, on the same axes as all others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clbench.report.figures.style import (
    COLOURS,
    INK,
    MUTED,
    WIDTH,
    add_legend,
    new_figure,
    short_labels,
)
from clbench.report.search.measures import Point

OWN: Final = COLOURS[0]
CHOSEN: Final = COLOURS[1]
OTHERS: Final[dict[str, Any]] = {"color": MUTED, "linewidth": 0.5, "alpha": 0.5}
"""How the other methods look in a panel."""
FEW: Final = 4
MOST: Final = 6
"""Panels side by side, for few methods and for many."""
_TITLE: Final = 20


def make_panels(
    names: Sequence[str], x_label: str, y_label: str, *, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel per method, all with the same axes and the method's name above.

    Args:
        names: of the methods, at least one.
        x_label: below each column.
        y_label: beside the figure.
        share_x: whether the horizontal axes are the same; if not, numbers stand below the lowest
            panel of each column all the same.
    """
    columns = min(len(names), FEW if len(names) <= 2 * FEW else MOST)
    rows = math.ceil(len(names) / columns)
    side = WIDTH / max(columns, FEW)
    figure = new_figure(side * columns, 0.95 * side * rows + 0.7, wspace=0.02, hspace=0.03)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=True)
    found = list(axes.flat)
    for ax in found:
        ax.label_outer()
    for ax, name in zip(found, short_labels(names, _TITLE), strict=False):
        ax.set_title(name, size=6.5)
    for i, ax in enumerate(found[len(names) :], start=len(names)):
        ax.set_axis_off()
        found[i - columns].tick_params(labelbottom=True)  # nothing stands below it
    for ax in found[max(0, len(names) - columns) : len(names)]:
        ax.set_xlabel(x_label, size=7)
    figure.supylabel(y_label, size=7.5, color=INK)
    return figure, found[: len(names)]


def mark_chosen(ax: Axes, x: float, y: float) -> None:
    """A ring around the chosen setting."""
    ax.plot(x, y, **_ring())


def panel_legend(figure: Figure, more: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """What the marks mean, below all panels: those given, then the chosen setting."""
    entries = [*more, ("chosen", _ring())]
    add_legend(
        figure,
        [Line2D([], [], **style) for _, style in entries],
        [name for name, _ in entries],
        figure.get_figwidth(),
    )


def joined(curves: Iterable[Sequence[Point]]) -> list[Point]:
    """Several curves as the points of one line, with gaps: drawn in a fraction of the time."""
    return [point for curve in curves for point in (*curve, (math.nan, math.nan))]


def limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Ends of an axis that shows some values, with a share of their span around them."""
    low, high = min(values), max(values)
    span = max(high - low, 1.0) * margin
    return low - span, high + span


def _ring() -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": 6.5,
        "markerfacecolor": "none",
        "markeredgecolor": CHOSEN,
        "markeredgewidth": 1.3,
        "zorder": 5,
    }
