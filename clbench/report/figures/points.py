"""One number per method: Transfer against Last with its cost, and forgetting."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.figures.chosen import MANY
from clbench.report.figures.labels import Mark, name_marks
from clbench.report.figures.series import NAMES, Series, half_interval, make_series, spread
from clbench.report.figures.style import (
    INK,
    MUTED,
    NARROW,
    REFERENCE_LINE,
    new_figure,
    short_labels,
)
from clbench.report.tables.grid import short_time

_AREA: Final = (18.0, 320.0)
"""Marker areas in square points for no cost and for the highest."""
_LABEL: Final = 28
_AXES: Final = {
    Setting.CLASS_INCREMENTAL: (("average", "Avg"), ("last", "Last")),
    Setting.DOMAIN_INCREMENTAL: (("average", "Avg"), ("last", "Last")),
    None: (("transfer", "Transfer"), ("last", "Last")),
}


def draw_tradeoff(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Transfer (class- and domain-incremental: Avg) against Last; area is training time.

    Bars are sample standard deviations over seeds; dotted lines mark methods that train nothing.
    """
    series, fixed = make_series(results, chosen)
    setting = results[0].benchmark.setting
    (x_key, x_name), (y_key, y_name) = _AXES.get(setting, _AXES[None])
    most = max((one.training_seconds for one in series), default=0.0)
    scale = 1.0 if len(series) <= MANY else 0.4
    drawn = [(one, _mark(one, x_key, y_key, most, scale)) for one in series]
    drawn = [(one, mark) for one, mark in drawn if math.isfinite(mark.x + mark.y)]
    if not drawn:
        return None
    figure = new_figure(NARROW, 3.5 if len(drawn) <= MANY else 4.2)
    ax = figure.subplots()
    for one, mark in sorted(drawn, key=lambda pair: -pair[1].area):
        _draw_mark(ax, one, mark)
    marks = [mark for one, mark in drawn if one.chosen]
    others = [mark for one, mark in drawn if not one.chosen]
    for still in fixed[:1]:
        mark = replace(_mark(still, x_key, y_key, most), area=_AREA[0], x_bar=0.0, y_bar=0.0)
        still.tag(ax.scatter(mark.x, mark.y, _AREA[0], color=MUTED, marker="+"), "mark")
        if math.isfinite(mark.x + mark.y):
            ax.axvline(mark.x, zorder=1, **REFERENCE_LINE)
            ax.axhline(mark.y, zorder=1, **REFERENCE_LINE)
            marks.append(mark)
    ax.set(xlabel=f"{x_name}, %", ylabel=f"{y_name}, %")
    ax.margins(0.16)
    _cost_legend(figure, most, scale)
    for name in name_marks(figure, ax, marks, others):
        name.set_gid(NAMES)
    return figure


def draw_forgetting(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Forgetting of every method with its 95 % t-interval over seeds; dots are seeds."""
    series, _ = make_series(results, chosen)
    known = [(one, one.summary("forgetting")) for one in series]
    known = [(one, values) for one, values in known if np.isfinite(values).all()]
    if not known:
        return None
    known.sort(key=lambda pair: float(pair[1].mean()))
    many = len(known) > MANY
    figure = new_figure(NARROW, 0.75 + (0.19 if many else 0.34) * len(known))
    ax = figure.subplots()
    for i, (one, values) in enumerate(known):
        mean, half = float(values.mean()), half_interval(values)
        (bar,) = ax.barh(
            i, mean, 0.62, color=one.style.colour, alpha=0.55, edgecolor=one.style.colour
        )
        one.tag(bar, "bar")
        if math.isfinite(half):
            ax.errorbar(mean, i, xerr=half, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
        offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
        ax.scatter(values, i + np.asarray(offsets), 7, color=INK, linewidth=0, zorder=4)
    lines = 1 if many else 2
    labels = short_labels([one.label for one, _ in known], lines * _LABEL)
    names = ["\n".join(wrap(text, _LABEL, max_lines=lines, placeholder="…")) for text in labels]
    ax.set_yticks(range(len(known)), names)
    ax.set_ylim(len(known) - 0.45, -0.55)
    ax.axvline(0, color=INK, linewidth=0.6)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("forgetting, percentage points (lower is better)")
    return figure


def _mark(one: Series, x_key: str, y_key: str, most: float, scale: float = 1.0) -> Mark:
    x, y = one.summary(x_key), one.summary(y_key)
    bars = float(spread(x)), float(spread(y))
    area = scale * _area(one.training_seconds, most)
    return Mark(one.label, float(x.mean()), float(y.mean()), area, *bars)


def _draw_mark(ax: Axes, one: Series, mark: Mark) -> None:
    style = one.style
    if not math.isnan(mark.x_bar + mark.y_bar):
        _, _, bars = ax.errorbar(
            mark.x,
            mark.y,
            mark.y_bar,
            mark.x_bar,
            fmt="none",
            ecolor=style.colour,
            elinewidth=0.9,
            zorder=2,
        )
        for bar in bars:
            bar.set_visible(one.chosen)
            one.tag(bar, "spread")
    marker = ax.scatter(
        mark.x,
        mark.y,
        mark.area,
        color=style.colour,
        marker=style.marker,
        edgecolor="white",
        linewidth=0.7,
        zorder=3 if one.chosen else 2,
    )
    one.tag(marker, "mark")


def _area(seconds: float, most: float) -> float:
    return _AREA[0] + (_AREA[1] - _AREA[0]) * (seconds / most if most > 0 else 0.0)


def _cost_legend(figure: Figure, most: float, scale: float) -> None:
    if most <= 0:
        return
    levels = [most * share for share in (0.1, 0.4, 1.0)]
    sizes = [math.sqrt(scale * _area(s, most)) for s in levels]
    round_mark: dict[str, Any] = {"ls": "", "marker": "o", "color": MUTED, "mec": "none"}
    handles = [Line2D([], [], ms=size, **round_mark) for size in sizes]
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
