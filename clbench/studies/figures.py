"""The two kinds of figures that studies draw: curves over a setting, and dots in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from clbench.report.figures.style import (
    MUTED,
    REFERENCE_LINE,
    WIDTH,
    LineStyle,
    add_legend,
    line_styles,
    new_figure,
)
from clbench.studies.runs import Estimate

Number = float | Estimate
_PANEL: Final = 2.3
"""Height of a panel with curves, in inches."""
_ROW: Final = 0.22


@dataclass(frozen=True)
class Curve:
    """Numbers along an axis.

    Attributes:
        name: in the legend; curves of the same name look alike in all panels.
        x: where they stand.
        y: the numbers; the intervals of estimates are shaded.
        marks: whether each number gets a marker; without, the curve is a plain line.
        joined: whether a line joins the numbers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Number]
    marks: bool = True
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """Axes with curves.

    Attributes:
        title: above.
        x: label.
        y: label.
        curves: in the order of the legend.
        level: a number to compare with, as a dotted line; None for none.
        log: whether the x axis is logarithmic.
        log_y: likewise.
        ticks: where the x axis has ticks; chosen by matplotlib if None.
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    level: float | None = None
    log: bool = False
    log_y: bool = False
    ticks: Sequence[float] | None = None


def draw_curves(panels: Sequence[Panel], level: str = "zero-shot", columns: int = 3) -> Figure:
    """Panels side by side with one legend.

    Args:
        panels: at least one.
        level: what the dotted lines are.
        columns: panels in a row, at most.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(WIDTH, _PANEL * rows + 0.35)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    styles = dict(zip(names, line_styles(len(names)), strict=True))
    for ax, panel in zip(axes, panels, strict=False):
        for curve in panel.curves:
            _draw_curve(ax, curve, styles[curve.name])
        if panel.level is not None:
            ax.axhline(panel.level, **REFERENCE_LINE)
        ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        for log, axis in ((panel.log, "x"), (panel.log_y, "y")):
            if log:
                _make_logarithmic(ax, axis)
        if panel.ticks is not None:
            ax.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks], minor=False)
            ax.minorticks_off()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    joined = {curve.name for panel in panels for curve in panel.curves if curve.joined}
    handles = [_handle(style, joined=name in joined) for name, style in styles.items()]
    if any(panel.level is not None for panel in panels):
        handles.append(Axes.axhline(axes[0], math.nan, **REFERENCE_LINE))
        names.append(level)
    add_legend(figure, handles, names)
    return figure


def _handle(style: LineStyle, *, joined: bool) -> Line2D:
    """What stands for a curve in the legend."""
    handle = style.handle()
    if not joined:
        handle.set_linestyle("none")
    return handle


def draw_dots(
    rows: Sequence[str],
    panels: Sequence[tuple[str, Sequence[Number | None]]],
    levels: Sequence[float | None] = (),
) -> Figure:
    """One row per variant and one panel per quantity, with intervals where they are known.

    Args:
        rows: names of the variants, from the top.
        panels: label and numbers of each panel, one number per row; None is left out.
        levels: for each panel a number to compare with, as a dotted line.
    """
    figure = new_figure(WIDTH, _ROW * len(rows) + 0.75)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for i, (ax, (label, values)) in enumerate(zip(axes, panels, strict=True)):
        style = line_styles(i + 1)[i]
        for row, value in enumerate(values):
            if value is not None:
                _draw_dot(ax, value, row, style)
        if i < len(levels) and (level := levels[i]) is not None:
            ax.axvline(level, **REFERENCE_LINE)
        ax.set_xlabel(label)
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def middle(number: Number) -> float:
    """The number itself, without its interval."""
    return number.value if isinstance(number, Estimate) else number


def _draw_curve(ax: Axes, curve: Curve, style: LineStyle) -> None:
    options: dict[str, Any] = {"color": style.colour, "ls": style.dash if curve.joined else "none"}
    if curve.marks:
        options["marker"] = style.marker
    ax.plot(curve.x, [middle(y) for y in curve.y], **options)
    bands = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if isinstance(y, Estimate)]
    if len(bands) > 1:
        x, estimates = zip(*bands, strict=True)
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)


def _make_logarithmic(ax: Axes, name: str) -> None:
    """Ticks at powers of ten, or at 1, 2 and 5 where these are few, as plain numbers."""
    ax.set(**{f"{name}scale": "log"})
    axis = ax.xaxis if name == "x" else ax.yaxis
    low, high = axis.get_view_interval()
    few = high < 100 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_dot(ax: Axes, value: Number, row: int, style: LineStyle) -> None:
    if isinstance(value, Estimate):
        ax.plot([value.low, value.high], [row, row], color=style.colour, linewidth=1.0)
    ax.plot([middle(value)], [row], color=style.colour, marker=style.marker)
    ax.axhline(row, color=MUTED, linewidth=0.2, alpha=0.5)
