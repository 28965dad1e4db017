"""Curves over the task sequence: accuracy of every task, accuracy on all classes, rank."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from clbench.core.results.result import RunResult
from clbench.report.figures.series import Array, Series, make_series, spread, zero_shot_row
from clbench.report.figures.style import (
    REFERENCE_LINE,
    RULE,
    WIDTH,
    add_legend,
    new_figure,
    short_labels,
)
from clbench.report.probed.tables import measures_of

PANELS: Final = 12
"""Most tasks shown; of longer sequences, evenly spaced ones."""
_COLUMNS: Final = 4
_LEGEND: Final = 40
_SLACK: Final = 0.08
"""Margin above and below the curves, as a share of the panel."""
_ENCODERS: Final = {"text": "Text encoder", "vision": "Image encoder"}


def draw_sequence(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Accuracy of every task after each learned task, one panel per task.

    All panels span the same number of points, so slopes compare. The shaded part comes before the
    task is learned; the dotted line is zero-shot; bands are sample standard deviations.
    """
    series, _ = make_series(results, chosen)
    tasks = results[0].benchmark.tasks
    shown = shown_tasks(len(tasks))
    reference = zero_shot_row(results)
    values = {one.label: one.values for one in series}
    if not any(np.isfinite(v[:, 1:]).any() for v in values.values()):
        return None
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(WIDTH, 1.4 * rows + 0.6, wspace=0.02, hspace=0.03)
    axes = figure.subplots(rows, columns, squeeze=False)
    names = short_labels(tasks, 22)
    limits = _equal_spans([_range(list(values.values()), reference, j) for j in shown])
    for i, ax in enumerate(axes.flat):
        if i >= len(shown):
            ax.set_axis_off()
            continue
        j = shown[i]
        ax.axvspan(0, j + 0.5, color=RULE, alpha=0.35, linewidth=0)
        if math.isfinite(reference[j]):
            ax.axhline(reference[j], **REFERENCE_LINE)
        for number, one in enumerate(series):
            _curve(ax, one, values[one.label][:, :, j], shift=number)
        ax.set(title=names[j], xlim=(0, len(tasks)), ylim=limits[i])
        if i // columns == rows - 1:
            ax.set_xlabel("tasks learned")
        ax.xaxis.set_major_locator(_whole_numbers(5))
        ax.yaxis.set_major_locator(MaxNLocator(3))
    for row in axes:
        row[0].set_ylabel("accuracy, %")
    _legend(figure, series, zero_shot=bool(np.isfinite(reference).any()))
    return figure


def draw_incremental(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Class-incremental runs: accuracy on all classes seen, and final accuracy of every step."""
    series, fixed = make_series(results, chosen)
    series = [*series, *fixed]
    steps = np.arange(1.0, len(results[0].benchmark.tasks) + 1)
    figure = new_figure(WIDTH, 2.9)
    seen, left = figure.subplots(1, 2, sharey=True)
    for number, one in enumerate(series):
        per_task = [matrix.per_task() for matrix in one.matrices]
        for ax, key in ((seen, "incremental"), (left, "last")):
            values = 100 * np.stack([metrics[key] for metrics in per_task])
            _curve(ax, one, values, steps, shift=number)
    seen.set(title="All classes seen so far", xlabel="steps learned", ylabel="accuracy, %")
    left.set(title="Classes of each step, after the last step", xlabel="step")
    for ax in (seen, left):
        ax.xaxis.set_major_locator(_whole_numbers(8))
        ax.margins(x=0.02)
    _legend(figure, series)
    return figure


def draw_ranks(
    results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> Figure | None:
    """Effective rank of the attention weights, where runs recorded it; bands as in accuracies."""
    series, _ = make_series(results, chosen)
    encoders = [e for e in _ENCODERS if any(one.ranks(e) is not None for one in series)]
    if not encoders:
        return None
    figure = new_figure(WIDTH if len(encoders) > 1 else WIDTH / 2, 2.7)
    axes = figure.subplots(1, len(encoders), squeeze=False)[0]
    drawn: dict[str, Series] = {}
    for ax, encoder in zip(axes, encoders, strict=True):
        for number, one in enumerate(series):
            if (ranks := one.ranks(encoder)) is not None:
                _curve(ax, one, ranks, shift=number)
                drawn[one.label] = one
        ax.set(title=_ENCODERS[encoder], xlabel="tasks learned")
        ax.xaxis.set_major_locator(_whole_numbers(8))
        ax.margins(x=0.02)
    axes[0].set_ylabel("effective rank, % of full rank")
    _legend(figure, list(drawn.values()))
    return figure


def draw_probe(
    results: Sequence[RunResult], chosen: Collection[str] | None = None, *, probe: str
) -> Figure | None:
    """What a probe measured over the sequence, one panel per measure; dotted: before training."""
    series, fixed = make_series(results, chosen)
    series = series or fixed
    keys = [
        key
        for key in measures_of(results, probe)
        if any(
            (found := one.probed(probe, key)) is not None and np.isfinite(found).any()
            for one in series
        )
    ][:PANELS]
    if not keys:
        return None
    columns = min(_COLUMNS - 1, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = new_figure(WIDTH, 1.7 * rows + 0.6, wspace=0.04, hspace=0.05)
    axes = figure.subplots(rows, columns, squeeze=False)
    drawn: dict[str, Series] = {}
    reference = False
    for i, ax in enumerate(axes.flat):
        if i >= len(keys):
            ax.set_axis_off()
            continue
        starts: list[float] = []
        for number, one in enumerate(series):
            if (values := one.probed(probe, keys[i])) is None:
                continue
            _curve(ax, one, values, shift=number)
            drawn[one.label] = one
            starts.append(values[:, 0].mean())
        if starts and math.isfinite(starts[0]):
            ax.axhline(starts[0], **REFERENCE_LINE)
            reference = True
        ax.set(title=keys[i])
        if i + columns >= len(keys):
            ax.set_xlabel("tasks learned")
        ax.xaxis.set_major_locator(_whole_numbers(8))
        ax.margins(x=0.02)
    _legend(figure, list(drawn.values()), zero_shot=reference)
    return figure


def shown_tasks(count: int) -> list[int]:
    """Indices of the tasks that get a panel: all, or evenly spaced ones with first and last.

    >>> shown_tasks(3), shown_tasks(50)
    ([0, 1, 2], [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49])
    """
    if count <= PANELS:
        return list(range(count))
    return [round(i * (count - 1) / (PANELS - 1)) for i in range(PANELS)]


def _curve(ax: Axes, one: Series, values: Array, x: Array | None = None, *, shift: int = 0) -> None:
    """Mean over seeds (the first axis), with a band where there is more than one.

    Some points carry a marker; `shift` moves these apart where curves lie on each other.
    """
    mean = values.mean(axis=0)
    x = np.arange(float(len(mean))) if x is None else x
    band = spread(values)
    if np.isfinite(band).any():
        filled = ax.fill_between(
            x, mean - band, mean + band, color=one.style.colour, alpha=0.18, linewidth=0
        )
        filled.set_visible(one.chosen)
        one.tag(filled, "band")
    every = max(1, len(mean) // 6)
    above = 2.2 if one.chosen else 1.8
    ink: dict[str, Any] = {"color": one.style.colour, "zorder": above}
    width = 1.1 if one.chosen else 0.6
    (line,) = ax.plot(x, mean, linestyle=one.style.dash, linewidth=width, **ink)
    (marks,) = ax.plot(
        x, mean, linestyle="", marker=one.style.marker, markevery=(shift % every, every), **ink
    )
    marks.set_visible(one.chosen)
    one.tag(line, "line")
    one.tag(marks, "marks")


def _range(values: Sequence[Array], reference: Array, j: int) -> tuple[float, float]:
    numbers = np.concatenate([*(v[:, :, j].mean(axis=0) for v in values), [reference[j]]])
    known = numbers[np.isfinite(numbers)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 100.0)


def _equal_spans(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Axis limits of equal span for several ranges, with a margin at both ends."""
    span = max(1.0, max(high - low for low, high in ranges)) * (1 + 2 * _SLACK)
    tops = [min((low + high + span) / 2, max(103.0, span)) for low, high in ranges]
    return [(top - span, top) for top in tops]


def _whole_numbers(count: int) -> MaxNLocator:
    return MaxNLocator(count, integer=True, steps=[1, 2, 5, 10])


def _legend(figure: Figure, series: Sequence[Series], *, zero_shot: bool = False) -> None:
    series = [one for one in series if one.chosen]
    labels = short_labels([one.label for one in series], _LEGEND)
    handles = [one.style.handle() for one in series]
    if zero_shot:
        labels, handles = [*labels, "zero-shot"], [*handles, Line2D([], [], **REFERENCE_LINE)]
    if labels:
        add_legend(figure, handles, labels, figure.get_figwidth())
