"""The figures of a search: fronts, learned against forgotten, learning rates, budgets."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clbench.report.search.measures import Point, front
from clbench.report.search.read import MethodSearch, SearchRecord, Summary
from clbench.report.search.tables import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LR: Final = "train.lr"
_ROOM: Final = 0.3
"""Room around what was chosen, as a share of its extent; settings beyond stand at the edge."""


def search_figures(record: SearchRecord) -> dict[str, bytes]:
    """Every figure that the trials have numbers for, by name: the content of an SVG file."""
    # matplotlib takes half a second to import.
    from clbench.report.figures.style import figure_settings, file_bytes, settle
    from clbench.report.search.budget import draw_budget

    title = TITLES[record.against]
    kinds: dict[str, Callable[[], Figure | None]] = {
        "fronts": lambda: _draw_fronts(record, _Axis(record.against, title), _LAST),
        "learned": lambda: _draw_fronts(record, _FORGOTTEN, _LEARNED),
        "rates": lambda: _draw_rates(record),
        "budget": lambda: draw_budget(record),
    }
    found = {}
    with figure_settings():
        for name, draw in kinds.items():
            if (figure := draw()) is not None:
                settle(figure)
                found[name] = file_bytes(figure, "svg")
    return found


@dataclass(frozen=True)
class _Axis:
    """A metric along an axis; `better` is -1 where smaller is better, and the axis is reversed."""

    key: str
    title: str
    better: int = 1

    def of(self, summary: Summary) -> float | None:
        value = summary.get(self.key)
        return None if value is None else 100 * value


_LAST: Final = _Axis("last", "Last")
_LEARNED: Final = _Axis("learned", "Learned")
_FORGOTTEN: Final = _Axis("forgetting", "Forgetting", better=-1)


def _draw_fronts(record: SearchRecord, across: _Axis, up: _Axis) -> Figure | None:
    from clbench.report.figures.style import REFERENCE_LINE
    from clbench.report.search.panels import (
        OTHERS,
        OWN,
        joined,
        limits,
        make_panels,
        mark_chosen,
        panel_legend,
    )

    known = {
        method: found
        for method in record.ranked
        if (found := [_point(trial.summary, across, up) for trial in method.trials]) and any(found)
    }
    if not known:
        return None
    trials = {m.title: [p for p in found if p is not None] for m, found in known.items()}
    fronts = {name: _front(points, across.better) for name, points in trials.items()}
    still = _point(record.zero_shot, across, up)
    chosen = [p for m, found in known.items() if (p := _chosen(m, found)) is not None]
    edge = (chosen or [p for points in fronts.values() for p in points]) + (
        [] if still is None else [still]
    )
    x_ends = limits([x for x, _ in edge], _ROOM)
    y_ends = limits([y for _, y in edge], _ROOM)
    figure, axes = make_panels(list(trials), f"{across.title}, %", f"{up.title}, %")
    beyond = False
    for ax, (method, found) in zip(axes, known.items(), strict=True):
        rest = [_stairs(points) for name, points in fronts.items() if name != method.title]
        if rest:
            ax.plot(*zip(*joined(rest), strict=True), **OTHERS)
        if still is not None:
            ax.axvline(still[0], **REFERENCE_LINE)
            ax.axhline(still[1], **REFERENCE_LINE)
        beyond |= _dots(ax, trials[method.title], x_ends, y_ends)
        own = fronts[method.title]
        ax.plot(*zip(*_stairs(own), strict=True), color=OWN, linewidth=1.2)
        if (best := _chosen(method, found)) is not None:
            mark_chosen(ax, *best)
    axes[0].set(xlim=x_ends[:: across.better], ylim=y_ends)
    more: list[tuple[str, dict[str, Any]]] = [
        ("a setting", _dot(OWN)),
        ("its front", {"color": OWN}),
        ("other fronts", OTHERS),
    ]
    more += [("farther off", _dot(OWN, hollow=True))] if beyond else []
    more += [("zero-shot", REFERENCE_LINE)] if still is not None else []
    panel_legend(figure, more)
    return figure


def _draw_rates(record: SearchRecord) -> Figure | None:
    from matplotlib.ticker import LogLocator, NullLocator

    from clbench.report.figures.style import MUTED, REFERENCE_LINE
    from clbench.report.search.panels import limits, make_panels, mark_chosen, panel_legend

    methods = [
        m
        for m in record.methods
        if m.trials and all(isinstance(t.values.get(LR), int | float) for t in m.trials)
    ]
    best = [100 * score for m in methods if (score := _best_score(m)) is not None]
    if not best:
        return None
    still = record.zero_shot.get(record.criterion)
    edge = [*best, *([] if still is None else [100 * still])]
    low, high = limits(edge, _ROOM)
    label = f"{TITLES.get(record.criterion, record.criterion)}, %"
    titles = [m.title for m in methods]
    figure, axes = make_panels(titles, "learning rate", label, share_x=False)
    strip = 0.22 * (high - low)  # where the ends of the second dimension are named
    beyond = False
    usual = Counter(_rate_ends(method) for method in methods).most_common(1)[0][0]
    for ax, method in zip(axes, methods, strict=True):
        ends = _rate_ends(method)
        ax.set(xscale="log", xlim=(ends[0] / 1.5, ends[1] * 1.5), ylim=(low - strip, high))
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(_rate)
        if ends != usual:
            ax.tick_params(labelbottom=True)
        if still is not None:
            ax.axhline(100 * still, **REFERENCE_LINE)
        key = next((key for key in method.searched if key != LR), None)
        colours = _colours([trial.values.get(key or "") for trial in method.trials])
        for trial, colour in zip(method.trials, colours, strict=True):
            rate = float(trial.values[LR])
            if trial.score is None:
                ax.plot(rate, low, ls="", marker="x", color=MUTED)
                continue
            held = _held(100 * trial.score, (low, high))
            hollow = held != 100 * trial.score
            ax.plot(rate, held, **_dot(colour, hollow=hollow), clip_on=False)
            beyond |= hollow
        if method.chosen is not None and (score := method.trials[method.chosen].score) is not None:
            mark_chosen(ax, float(method.trials[method.chosen].values[LR]), 100 * score)
        if key is not None and all(key in trial.values for trial in method.trials):
            _name_ends(ax, key, method, colours)
    more: list[tuple[str, dict[str, Any]]] = [("a setting", _dot(_ENDS[0]))]
    more += [("farther off", _dot(_ENDS[0], hollow=True))] if beyond else []
    more += [("diverged", {"ls": "", "marker": "x", "color": MUTED})]
    more += [("zero-shot", REFERENCE_LINE)] if still is not None else []
    panel_legend(figure, more)
    return figure


def _best_score(method: MethodSearch) -> float | None:
    return max((t.score for t in method.trials if t.score is not None), default=None)


def _rate(value: float, _: object) -> str:
    """A learning rate below an axis, as short as it can be."""
    return f"{value:g}" if 0.1 <= value < 1000 else f"{value:.0e}".replace("e-0", "e-")


def _rate_ends(method: MethodSearch) -> Point:
    """Ends of the learning rates that were tried, rounded outwards to powers of ten."""
    rates = [math.log10(float(trial.values[LR])) for trial in method.trials]
    return 10.0 ** math.floor(min(rates)), 10.0 ** math.ceil(max(rates))


_ENDS: Final = ("#0072b2", "#e69f00")
"""Colours of the smallest and of the largest value of the second dimension."""


def _colours(values: Sequence[Any]) -> list[str]:
    """A colour for each value: between two colours, by its place among the different ones."""
    from matplotlib.colors import to_hex, to_rgb

    different = {str(value): value for value in values}
    numbers = all(isinstance(value, int | float) for value in values)
    order = sorted(different, key=lambda text: (different[text] if numbers else 0, text))
    first, last = (np.array(to_rgb(colour)) for colour in _ENDS)
    share = {text: i / max(1, len(order) - 1) for i, text in enumerate(order)}
    mixed = [first + share[str(value)] * (last - first) for value in values]
    return [to_hex((float(r), float(g), float(b))) for r, g, b in mixed]


def _name_ends(ax: Axes, key: str, method: MethodSearch, colours: Sequence[str]) -> None:
    """Write what the colours of a panel stand for: the name above, the ends below."""
    from clbench.report.figures.style import INK

    values = [trial.values[key] for trial in method.trials if key in trial.values]
    ends = [values[colours.index(colour)] for colour in _ENDS if colour in colours]
    texts = [_brief(end) if isinstance(end, float) else str(end) for end in ends]
    name = key.rpartition(".")[2]
    place: dict[str, Any] = {
        "transform": ax.transAxes,
        "size": 5.5,
        "va": "bottom",
        "in_layout": False,
    }
    ax.text(0.03, 0.88, name, color=INK, **place)
    ax.text(0.03, 0.02, texts[0], color=_ENDS[0], **place)
    if len(texts) > 1:
        ax.text(0.97, 0.02, texts[1], color=_ENDS[1], ha="right", **place)


def _brief(value: float) -> str:
    """Two digits of a number.

    >>> [_brief(value) for value in (0.2973, 64.9, 486_966.0)]
    ['0.3', '65', '4.9e5']
    """
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.2g}")


def _point(summary: Summary, across: _Axis, up: _Axis) -> Point | None:
    x, y = across.of(summary), up.of(summary)
    return None if x is None or y is None else (x, y)


def _chosen(method: MethodSearch, found: Sequence[Point | None]) -> Point | None:
    return None if method.chosen is None else found[method.chosen]


def _front(points: Sequence[Point], better: int) -> list[Point]:
    return [points[i] for i in front([(better * x, y) for x, y in points])]


def _stairs(points: Sequence[Point]) -> list[Point]:
    """A front as the edge of what it reaches: from each point across, then up or down."""
    corners = [(before[0], after[1]) for before, after in itertools.pairwise(points)]
    turns = [point for pair in zip(points, corners, strict=False) for point in pair]
    return [*turns, points[-1]]


def _dots(
    ax: Axes,
    points: Sequence[Point],
    x_ends: Point,
    y_ends: Point,
) -> bool:
    """Draw settings, hollow at the edge those beyond it; whether there are such."""
    from clbench.report.search.panels import OWN

    within = {point: (_held(point[0], x_ends), _held(point[1], y_ends)) for point in points}
    for hollow in (False, True):
        shown = [inner for point, inner in within.items() if (inner != point) == hollow]
        if shown:
            ax.plot(*zip(*shown, strict=True), **_dot(OWN, hollow=hollow), clip_on=False)
    return any(inner != point for point, inner in within.items())


def _held(value: float, ends: Point) -> float:
    return min(max(value, ends[0]), ends[1])


def _dot(colour: str, hollow: bool = False) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": 2.8,
        "markeredgecolor": colour,
        "markeredgewidth": 0.6,
        "markerfacecolor": "none" if hollow else colour,
    }
