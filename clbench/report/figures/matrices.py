"""Accuracy matrices as heatmaps, one panel per method under one colour scale."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from clbench.core.results.result import RunResult
from clbench.report.figures.series import Array, make_series
from clbench.report.figures.style import MUTED, NARROW, WIDTH, new_figure, short_labels

COLOUR_MAP: Final = "cividis"
READABLE: Final = 12
"""Most tasks whose cells hold a number; with more tasks, axes count them instead of naming them."""
_PANELS_PER_ROW: Final = 2
_FEW: Final = 8
"""Of more panels, one more stands in a row."""
_NAME: Final = 14
_TITLE: Final = 36


def draw_matrices(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Mean accuracy over seeds; a line separates learned tasks from later ones."""
    series, _ = make_series(results, chosen)
    panels = [(one.label, one.values.mean(axis=0)) for one in series if one.chosen]
    panels = [(label, values) for label, values in panels if not np.isnan(values).all()]
    if not panels:
        return None
    low, high = _limits([values for _, values in panels])
    tasks = list(results[0].benchmark.tasks)
    first = 1 if all(np.isnan(values[0]).all() for _, values in panels) else 0
    figure, axes, key = _layout(len(panels), len(tasks) + 1 - first, len(tasks) <= READABLE)
    titles = short_labels([label for label, _ in panels], _TITLE)
    for ax, title, (_, values) in zip(axes, titles, panels, strict=True):
        mesh = _panel(ax, values, low, high, first)
        ax.set_title(title)
        place = ax.get_subplotspec()
        left, bottom = place.is_first_col(), place.is_last_row()  # type: ignore[union-attr]
        _label_axes(ax, tasks, first, left=left, bottom=bottom)
    if key is None:
        bar = figure.colorbar(mesh, ax=axes, shrink=1.6 / max(1.6, len(axes) / 2), aspect=24)
        bar.set_label("accuracy, %")
    else:
        inset = key.inset_axes((0.12, 0.5, 0.76, 0.07))
        bar = figure.colorbar(mesh, cax=inset, orientation="horizontal", label="accuracy, %")
        text = "Above the stepped line:\ntasks not learned yet"
        key.text(0.12, 0.68, text, color=MUTED, transform=key.transAxes, linespacing=1.4)
    bar.outline.set_visible(False)
    return figure


def _layout(panels: int, rows: int, named: bool) -> tuple[Figure, list[Axes], Axes | None]:
    """A figure with axes for the panels, and an empty slot for the colour scale if there is one.

    Where the panels do not fill their rows, the gap is put above: labels stand below the last row.
    """
    small = panels > _FEW
    columns = min(_PANELS_PER_ROW + small, panels)
    lines = math.ceil(panels / columns)
    cell = 0.18 if small else 0.24
    height = lines * (cell * rows + 0.25 if named else 2.9) + (1.2 if named else 0.6)
    figure = new_figure(WIDTH if columns > 1 else NARROW, height, wspace=0.03, hspace=0.02)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    if len(axes) == panels:
        return figure, axes, None
    gaps = [axes.pop(columns - 1 - k) for k in range(len(axes) - panels)]
    for gap in gaps:
        gap.set_axis_off()
    return figure, axes, gaps[-1]


def _limits(matrices: Sequence[Array]) -> tuple[float, float]:
    """The range of all matrices, widened to tens."""
    low = math.floor(min(np.nanmin(m) for m in matrices) / 10) * 10
    high = math.ceil(max(np.nanmax(m) for m in matrices) / 10) * 10
    return low, max(high, low + 10)


def _panel(ax: Axes, values: Array, low: float, high: float, first: int) -> QuadMesh:
    shown = values[first:]
    rows, columns = shown.shape
    named = columns <= READABLE
    edges = (np.arange(columns + 1), np.arange(rows + 1))
    mesh = ax.pcolormesh(
        *edges,
        np.ma.masked_invalid(shown),
        vmin=low,
        vmax=high,
        cmap=COLOUR_MAP,
        edgecolors="face",
        linewidth=0.15,  # hides the seams that viewers draw between cells
        rasterized=not named,
    )
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    ax.grid(visible=False)
    ax.tick_params(length=0, pad=2)
    for spine in ax.spines.values():
        spine.set_visible(False)
    _staircase(ax, columns, first)
    if named:
        for (t, j), value in np.ndenumerate(shown):
            if not math.isnan(value):
                colour = text_colour((value - low) / (high - low))
                text = f"{value:.0f}"
                ax.text(j + 0.5, t + 0.52, text, size=6.5, c=colour, ha="center", va="center")
    return mesh


def _staircase(ax: Axes, columns: int, first: int) -> None:
    """Above and to the right of the line, the task of the column has not been learned."""
    corners = [(x, j + 1 - first) for j in range(columns) for x in (j, j + 1)]
    halo = [Stroke(linewidth=2.2, foreground="white"), Normal()]
    x, y = zip(*corners, strict=True)
    ax.plot(x, y, color="black", linewidth=0.9, path_effects=halo, solid_joinstyle="miter")


def _label_axes(ax: Axes, tasks: Sequence[str], first: int, *, left: bool, bottom: bool) -> None:
    names = short_labels(tasks, _NAME)
    if len(tasks) <= READABLE:
        rows = ["zero-shot", *names][first:]
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(np.arange(len(tasks)) + 0.5, names, **slanted)
        ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    else:
        step = next(s for s in (2, 5, 10, 20, 50, 100, 1000) if len(tasks) / s <= READABLE)
        counted = [t for t in range(1, len(tasks) + 1) if t % step == 0 or t == 1]
        ax.set_xticks([t - 0.5 for t in counted], [str(t) for t in counted])
        ax.set_yticks([t - first + 0.5 for t in counted], [str(t) for t in counted])
    ax.tick_params(labelleft=left, labelbottom=bottom)
    if left:
        ax.set_ylabel("after learning", color=MUTED)
    if bottom:
        ax.set_xlabel("tested on", color=MUTED)


def text_colour(position: float) -> str:
    """Black or white, whichever has the higher contrast on the cell."""
    return "black" if luminance(colormaps[COLOUR_MAP](position)[:3]) > 0.179 else "white"


def luminance(rgb: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour with channels in [0, 1], as WCAG defines it.

    >>> luminance((1, 1, 1)), luminance((0, 0, 0))
    (1.0, 0.0)
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return round(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)), 6)
