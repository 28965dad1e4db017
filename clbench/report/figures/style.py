"""How figures look: printed size, labels, and colours that colour-blind readers can tell apart.

Widths are those of printed pages, so that type has its stated size when a figure is placed
unscaled over one or two columns.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

WIDTH: Final = 7.0
"""Inches over two columns of a paper."""
NARROW: Final = 4.6
INK: Final = "#16181d"
"""Text and axes. Drawn with this colour only, so that a page can exchange it in dark mode."""
RULE: Final = "#c4c9d0"
"""Grid lines and shading, exchanged likewise."""
MUTED: Final = "#7a828e"
"""Reference lines; readable on white and on black."""
FAINT: Final = "#b3bac5"
"""Methods that do not stand out, exchanged likewise."""
REFERENCE_LINE: Final[dict[str, Any]] = {
    "color": MUTED,
    "linestyle": (0, (1, 1.5)),
    "linewidth": 0.9,
}
"""The level of the untrained model."""
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette without black and yellow, which vanish on dark and on white paper."""
DASHES: Final = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
LEGEND: Final = "legend-of-methods"
"""What the legend is called, so that a page can show one of its own."""
DPI: Final = 200
FORMATS: Final = ("svg", "pdf", "png")

_SETTINGS: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",  # part of matplotlib, hence the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "text.color": INK,
    "text.parse_math": False,  # dollar signs in names do not start formulas
    "text.hinting": "none",  # one layout for all formats
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,  # publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "clbench",
}
_ANONYMOUS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""Without dates and versions the same numbers give the same bytes."""


@dataclass(frozen=True)
class LineStyle:
    """How one method is drawn in all figures: each of the three alone identifies it."""

    colour: str
    dash: Any
    marker: str

    def faint(self) -> LineStyle:
        """The style of a method that does not stand out."""
        return replace(self, colour=FAINT, dash="-")

    def handle(self, **options: Any) -> Line2D:
        """A line for a legend."""
        return Line2D([], [], color=self.colour, ls=self.dash, marker=self.marker, **options)


def line_styles(count: int) -> list[LineStyle]:
    """Different styles for a number of methods; colours repeat only with other dashes."""
    return [
        LineStyle(
            COLOURS[i % len(COLOURS)],
            DASHES[(i + i // len(COLOURS)) % len(DASHES)],
            MARKERS[i % len(MARKERS)],
        )
        for i in range(count)
    ]


@contextmanager
def figure_settings() -> Iterator[None]:
    """Draw with the settings of this module, whatever the user's matplotlib is set to."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Names may be written in letters that the font lacks; a box is drawn for these.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, _SETTINGS))
        yield


def settle(figure: Figure) -> None:
    """Compute the layout of a figure once: it takes longer than drawing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def file_bytes(figure: Figure, form: str, background: str = "white") -> bytes:
    """A figure as the content of a file; the same figure gives the same bytes.

    Args:
        figure: drawn within `figure_settings`.
        form: one of `FORMATS`.
        background: a colour, or ``none``.
    """
    buffer = io.BytesIO()
    with figure_settings():
        figure.savefig(
            buffer, format=form, dpi=DPI, facecolor=background, metadata=_ANONYMOUS[form]
        )
    return buffer.getvalue()


def short_labels(names: Sequence[str], width: int) -> list[str]:
    """Names no longer than a width, different where the names are.

    Long ones lose their middle, because variants of a method differ at the end.

    >>> short_labels(["nusa", "lora (rank=8, train.lr=0.001)"], 16)
    ['nusa', 'lora (r…r=0.001)']
    """
    plain = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    head, tail = (width - 1) // 2, width - 1 - (width - 1) // 2
    short = [n if len(n) <= width else f"{n[:head]}…{n[-tail:]}" for n in plain]
    if len(set(short)) == len(set(names)):
        return short
    cut = width - 2 - len(str(len(names)))
    return [f"{n[:cut]}… {i}" for i, n in enumerate(plain, start=1)]


def add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], width: float = WIDTH
) -> None:
    """A legend below all axes, in as many columns as fit the width in inches."""
    column = 0.55 + 0.056 * max(map(len, labels))
    rows = math.ceil(len(labels) / max(1, int(width / column)))
    columns = math.ceil(len(labels) / rows)
    # A label that begins with an underscore would be left out.
    texts = [f" {label}" if label.startswith("_") else label for label in labels]
    legend = figure.legend(
        list(handles), texts, loc="outside lower center", ncols=columns, columnspacing=1.4
    )
    legend.set_gid(LEGEND)


class ReportFigure(Figure):
    """A figure that notebooks show as files hold it, whatever matplotlib is set to there."""

    def _repr_png_(self) -> bytes:
        return file_bytes(self, "png")


def new_figure(width: float, height: float, **layout: Any) -> Figure:
    """An empty figure with room for labels; `layout` replaces paddings of constrained layout."""
    figure = ReportFigure(figsize=(width, height))
    engine = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, **layout)
    figure.set_layout_engine(engine)
    return figure
