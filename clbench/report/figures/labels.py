"""Placing names beside markers without overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from clbench.report.figures.style import short_labels

_WIDTH: Final = 28
_REACH: Final = (4, 11, 20, 32, 46)
"""Distances of a name from its marker in points, tried in turn."""
_ACROSS: Final[dict[int, Literal["left", "center", "right"]]] = {
    1: "left",
    0: "center",
    -1: "right",
}
_ALONG: Final[dict[int, Literal["bottom", "center", "top"]]] = {
    1: "bottom",
    0: "center",
    -1: "top",
}
_DIRECTIONS: Final = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Mark:
    """A marker that gets a name.

    Attributes:
        name: to be written.
        x: position in data units.
        y: likewise.
        area: of the marker, in square points.
        x_bar: half the length of its error bar in data units; NaN for none.
        y_bar: likewise.
    """

    name: str
    x: float
    y: float
    area: float
    x_bar: float = math.nan
    y_bar: float = math.nan

    @property
    def radius(self) -> float:
        """Half the width of the marker, in points."""
        return math.sqrt(self.area) / 2


def name_marks(
    figure: Figure, ax: Axes, marks: Sequence[Mark], others: Sequence[Mark] = ()
) -> list[Annotation]:
    """Write names where they cover neither marker, bar, line nor another name, if possible.

    Figure and axes must be complete but for the names. Names may cover `others` if they must.
    """
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken = [box for mark in marks for box in _boxes(ax, mark, scale)]
    taken += [line.get_window_extent().padded(scale) for line in ax.lines]
    faint = [box for mark in others for box in _boxes(ax, mark, scale)[:1]]
    frame = ax.get_window_extent()
    names = []
    for mark, text in zip(marks, short_labels([mark.name for mark in marks], _WIDTH), strict=True):
        label = ax.annotate(text, (mark.x, mark.y), (0, 0), textcoords="offset points", size=7)
        places = [
            (right, up, reach + mark.radius)
            for reach, (right, up) in itertools.product(_REACH, _DIRECTIONS)
        ]
        # The first of the best: free if there is a free one, near and to the right if possible.
        best = min(places, key=lambda place: _covered(_moved(label, *place), taken, faint, frame))
        taken.append(_moved(label, *best))
        names.append(label)
    return names


def _boxes(ax: Axes, mark: Mark, scale: float) -> list[Bbox]:
    centre = ax.transData.transform((mark.x, mark.y))
    radius = scale * mark.radius
    bars = np.nan_to_num([mark.x_bar, mark.y_bar])
    ends = [ax.transData.transform((mark.x + s * bars[0], mark.y)) for s in (-1, 1)]
    ends += [ax.transData.transform((mark.x, mark.y + s * bars[1])) for s in (-1, 1)]
    return [
        Bbox([centre - radius, centre + radius]),
        Bbox(ends[:2]).padded(scale),
        Bbox(ends[2:]).padded(scale),
    ]


def _covered(
    box: Bbox, taken: Sequence[Bbox], faint: Sequence[Bbox], frame: Bbox
) -> tuple[int, int]:
    """How many objects a name would cover; leaving the frame costs more than all of them."""
    outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1)
    outside |= not (frame.y0 <= box.y0 and box.y1 <= frame.y1)
    covered = int(box.count_overlaps(taken)) + (len(taken) + 1) * outside
    return covered, int(box.count_overlaps(faint)) if faint else 0


def _moved(label: Annotation, right: int, up: int, distance: float) -> Bbox:
    length = math.hypot(right, up)
    label.set_position((right * distance / length, up * distance / length))
    label.set_horizontalalignment(_ACROSS[right])
    label.set_verticalalignment(_ALONG[up])
    return label.get_window_extent()
