"""One number per method: Transfer against Last with its cost, and forgetting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from clbench.core.result import RunResult
from clbench.core.task import Setting
from clbench.report.figure_series import half_interval, make_series, spread
from clbench.report.figure_style import (
    INK,
    MUTED,
    NARROW,
    REFERENCE_LINE,
    new_figure,
    short_labels,
)
from clbench.report.grid import short_time

_AREA: Final = (18.0, 320.0)
"""Marker areas in square points for no cost and for the highest."""
_LABEL: Final = 28
_REACH: Final = (4, 11, 20, 32, 46)
"""Distances of a label from its marker in points, tried in turn."""
_DIRECTIONS: Final = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_AXES: Final = {
    Setting.CLASS_INCREMENTAL: (("average", "Avg"), ("last", "Last")),
    None: (("transfer", "Transfer"), ("last", "Last")),
}


def draw_tradeoff(results: Sequence[RunResult]) -> Figure | None:
    """Transfer against Last (class-incremental: Avg against Last); area is training time.

    Bars are sample standard deviations over seeds; dotted lines mark methods that train nothing.
    """
    series, fixed = make_series(results)
    setting = results[0].benchmark.setting
    (x_key, x_name), (y_key, y_name) = _AXES.get(setting, _AXES[None])
    points = [
        (one, float(one.summary(x_key).mean()), float(one.summary(y_key).mean())) for one in series
    ]
    points = [point for point in points if all(map(math.isfinite, point[1:]))]
    if not points:
        return None
    figure = new_figure(NARROW, 3.5)
    ax = figure.subplots()
    most = max(one.training_seconds for one, _, _ in points)
    for one, x, y in sorted(points, key=lambda point: -point[0].training_seconds):
        x_std, y_std = (float(spread(one.summary(key))) for key in (x_key, y_key))
        colour, marker = one.style.colour, one.style.marker
        if math.isfinite(x_std):
            ax.errorbar(x, y, y_std, x_std, fmt="none", ecolor=colour, elinewidth=0.9, zorder=2)
        area = _area(one.training_seconds, most)
        ax.scatter(
            x, y, area, color=colour, marker=marker, edgecolor="white", linewidth=0.7, zorder=3
        )
    marks = [(one.label, x, y, _area(one.training_seconds, most)) for one, x, y in points]
    for one in fixed[:1]:
        x, y = (float(one.summary(key).mean()) for key in (x_key, y_key))
        ax.axvline(x, zorder=1, **REFERENCE_LINE)
        ax.axhline(y, zorder=1, **REFERENCE_LINE)
        marks.append((one.label, x, y, _AREA[0]))
    ax.set(xlabel=f"{x_name}, %", ylabel=f"{y_name}, %")
    ax.margins(0.16)
    _cost_legend(figure, most)
    _place_labels(figure, ax, marks)
    return figure


def draw_forgetting(results: Sequence[RunResult]) -> Figure | None:
    """Forgetting of every method with its 95 % t-interval over seeds; dots are seeds."""
    series, _ = make_series(results)
    known = [(one, one.summary("forgetting")) for one in series]
    known = [(one, values) for one, values in known if np.isfinite(values).all()]
    if not known:
        return None
    known.sort(key=lambda pair: float(pair[1].mean()))
    figure = new_figure(NARROW, 0.75 + 0.34 * len(known))
    ax = figure.subplots()
    for i, (one, values) in enumerate(known):
        mean, half = float(values.mean()), half_interval(values)
        ax.barh(i, mean, 0.62, color=one.style.colour, alpha=0.55, edgecolor=one.style.colour)
        if math.isfinite(half):
            ax.errorbar(mean, i, xerr=half, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
        offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
        ax.scatter(values, i + np.asarray(offsets), 7, color=INK, linewidth=0, zorder=4)
    labels = short_labels([one.label for one, _ in known], 2 * _LABEL)
    names = ["\n".join(wrap(label, _LABEL, max_lines=2, placeholder="…")) for label in labels]
    ax.set_yticks(range(len(known)), names)
    ax.set_ylim(len(known) - 0.45, -0.55)
    ax.axvline(0, color=INK, linewidth=0.6)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("forgetting, percentage points (lower is better)")
    return figure


def _area(seconds: float, most: float) -> float:
    return _AREA[0] + (_AREA[1] - _AREA[0]) * (seconds / most if most > 0 else 0.0)


def _cost_legend(figure: Figure, most: float) -> None:
    if most <= 0:
        return
    levels = [most * share for share in (0.1, 0.4, 1.0)]
    handles = [
        Line2D([], [], ls="", marker="o", color=MUTED, mec="none", ms=math.sqrt(_area(s, most)))
        for s in levels
    ]
    figure.legend(
        handles,
        [short_time(seconds) for seconds in levels],
        loc="outside upper center",
        ncols=len(levels),
        title="training time",
        title_fontsize=7.5,
        handletextpad=0.6,
        borderpad=0.8,
    )


def _place_labels(
    figure: Figure, ax: Axes, marks: Sequence[tuple[str, float, float, float]]
) -> None:
    """Write names beside markers, where they cover neither a marker nor another name.

    Args:
        figure: complete but for the names.
        ax: its axes.
        marks: name, position in data units and area in square points.
    """
    names = short_labels([name for name, *_ in marks], _LABEL)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken = []
    for _, x, y, area in marks:
        centre = ax.transData.transform((x, y))
        radius = scale * math.sqrt(area) / 2
        taken.append(Bbox([centre - radius, centre + radius]))
    markers = list(taken)
    bars = [found for found in ax.collections if isinstance(found, LineCollection)]
    taken += [found.get_window_extent().padded(scale) for found in (*ax.lines, *bars)]
    frame = ax.get_window_extent()
    for (_, x, y, _), name, marker in zip(marks, names, markers, strict=True):
        label = ax.annotate(name, (x, y), textcoords="offset points", xytext=(0, 0), size=7)
        for reach, (right, up) in itertools.product(_REACH, _DIRECTIONS):
            _move(label, right, up, reach + marker.width / 2 / scale)
            box = label.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
            if inside and box.y1 <= frame.y1 and box.count_overlaps(taken) == 0:
                break
        taken.append(label.get_window_extent())


def _move(label: Annotation, right: int, up: int, distance: float) -> None:
    length = math.hypot(right, up)
    label.set_position((right * distance / length, up * distance / length))
    label.set_ha({1: "left", 0: "center", -1: "right"}[right])
    label.set_va({1: "bottom", 0: "center", -1: "top"}[up])
