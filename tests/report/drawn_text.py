"""What a figure writes and where: boxes that turn with it, and whether two of them overlap."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Corners = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnText:
    """A line of text and the corners of its box, ``(4, 2)`` pixels from the upper left."""

    text: str
    corners: Corners


def svg_texts(svg: str) -> list[str]:
    """What an SVG writes; the outlines of its letters depend on the version of matplotlib."""
    return re.findall(r"<!-- (.*?) -->", svg)


def drawn_texts(figure: Figure) -> tuple[list[DrawnText], tuple[float, float]]:
    """Everything a figure writes when it is drawn, and the size of the figure in pixels."""
    canvas = FigureCanvasAgg(figure)
    found: list[DrawnText] = []
    renderer: Any = canvas.get_renderer()
    original = RendererAgg.draw_text

    def record(gc: Any, x: float, y: float, s: str, prop: Any, angle: float, *rest: Any, **k: Any):  # type: ignore[no-untyped-def]
        width, height, descent = renderer.get_text_width_height_descent(s, prop, False)
        turn = math.radians(angle)
        along = np.array([math.cos(turn), -math.sin(turn)])
        up = np.array([-math.sin(turn), -math.cos(turn)])
        low = np.array([x, y]) - descent * up
        high = low + height * up
        corners = np.stack([low, low + width * along, high + width * along, high])
        found.append(DrawnText(s, corners))
        return original(renderer, gc, x, y, s, prop, angle, *rest, **k)

    renderer.draw_text = record
    figure.draw(renderer)
    return [text for text in found if text.text.strip()], (renderer.width, renderer.height)


def outside(texts: list[DrawnText], size: tuple[float, float]) -> list[str]:
    """The texts that leave the figure."""
    limits = np.array(size) + 0.5
    return [t.text for t in texts if (t.corners < -0.5).any() or (t.corners > limits).any()]


def overlapping(texts: list[DrawnText], slack: float = 1.0) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other by more than some pixels."""
    low = np.array([t.corners.min(axis=0) for t in texts])
    high = np.array([t.corners.max(axis=0) for t in texts])
    near = (low[:, None] < high[None] - slack).all(-1) & (low[None] < high[:, None] - slack).all(-1)
    return [
        (texts[i].text, texts[j].text)
        for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True)
        if _covered(texts[i].corners, texts[j].corners, slack)
    ]


def _covered(one: Corners, other: Corners, slack: float) -> bool:
    """Two rectangles overlap if no side of either separates them (separating axes)."""
    for box in (one, other):
        for side in (box[1] - box[0], box[3] - box[0]):
            axis = side / np.linalg.norm(side)
            a, b = one @ axis, other @ axis
            if min(a.max(), b.max()) - max(a.min(), b.min()) <= slack:
                return False
    return True
