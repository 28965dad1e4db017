"""One self-contained HTML file with everything about a set of runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.core.files import write_atomic
from clbench.core.results.result import RunResult
from clbench.report.figures.chosen import default_choice
from clbench.report.figures.draw import DrawnFigure, draw_all
from clbench.report.figures.series import NAMES, TAG
from clbench.report.page.runs import (
    families,
    line_looks,
    matrices,
    palette,
    provenance,
    script_json,
)
from clbench.report.page.tables import page_table
from clbench.report.tables.collection import group_tables, spanning_tables
from clbench.report.tables.foreign import foreign_tables
from clbench.report.tables.grid import WHOLE, View
from clbench.report.tables.groups import comparable_groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clbench.report.tables.collection import Paired
    from clbench.report.tables.foreign import ForeignMatrix
    from clbench.report.tables.published import Deviation

FILE_NAME = "index.html"
Figures = Mapping[str, Sequence[DrawnFigure]]
"""By the name of their group."""
WIDE = 5.0
"""Width in inches from which a figure gets a row of its own."""


def write_page(
    results: Iterable[RunResult],
    out: Path,
    *,
    figures: Figures | None = None,
    comparisons: Sequence[Paired] = (),
    deviation: Deviation | None = None,
    foreign: Sequence[ForeignMatrix] = (),
    view: View = WHOLE,
) -> Path:
    """Write the page of a set of runs.

    Args:
        results: runs of any benchmarks.
        out: folder, made if missing.
        figures: from `draw_all`, of the same runs; None draws them.
        comparisons: see `write_report`.
        deviation: see `write_report`.
        foreign: see `write_report`.
        view: columns and order of the tables; its methods are chosen at first, all are there.

    Returns:
        The file.

    Raises:
        ClbenchError: there are no results, two contradict each other, or the file cannot be
            written.
    """
    path = out / FILE_NAME
    text = page_html(
        results,
        figures=figures,
        comparisons=comparisons,
        deviation=deviation,
        foreign=foreign,
        view=view,
    )
    write_atomic(path, text)
    return path


def page_html(
    results: Iterable[RunResult],
    *,
    figures: Figures | None = None,
    comparisons: Sequence[Paired] = (),
    deviation: Deviation | None = None,
    foreign: Sequence[ForeignMatrix] = (),
    view: View = WHOLE,
) -> str:
    """The text of the page; the same runs give the same text, whatever their order.

    All content of result files is shown as text: templates escape it, and the page's
    content security policy runs no script but its own and loads nothing.
    """
    from jinja2 import Environment, StrictUndefined

    groups = comparable_groups(results)
    every = [result for group in groups for result in group.results]
    chosen = default_choice(every) if view.methods is None else view.methods
    drawn = draw_all(every, chosen) if figures is None else figures
    accuracies = [matrices(group) for group in groups]
    whole = replace(view, methods=None)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = _asset("script.js")
    return environment.from_string(_asset("template.html")).render(
        style=_asset("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        groups=[
            {
                "number": number,
                "group": group,
                "benchmark": group.results[0].benchmark.name,
                "labels": {row["label"]: number for number, row in enumerate(grids["rows"])},
                "tables": [
                    page_table(document)
                    for document in group_tables(group, comparisons, deviation, whole)
                    if document.grid.rows
                ],
                "figures": _figures(number, drawn[group.name]),
                "runs": provenance(group),
            }
            for number, (group, grids) in enumerate(zip(groups, accuracies, strict=True), start=1)
        ],
        spanning=[
            page_table(document)
            for document in (*spanning_tables(groups), *foreign_tables(groups, foreign))
        ],
        benchmarks=list(dict.fromkeys(group.results[0].benchmark.name for group in groups)),
        families=families(groups),
        chosen=chosen,
        data=script_json(
            {
                "palette": palette(),
                "looks": line_looks(),
                "chosen": sorted(chosen),
                "groups": accuracies,
            }
        ),
    )


def _figures(number: int, drawn: Sequence[DrawnFigure]) -> list[dict[str, Any]]:
    return [
        {
            "name": figure.name,
            "title": figure.title,
            "caption": figure.caption,
            "wide": figure.figure.get_figwidth() > WIDE or figure.name == "matrices",
            "svg": inline_svg(figure, f"g{number}-{figure.name}-"),
        }
        for figure in drawn
    ]


def inline_svg(drawn: DrawnFigure, prefix: str) -> str:
    """A figure as an SVG element whose ink follows the page's colours.

    Args:
        drawn: the figure.
        prefix: put before every id, which must be unique on a page.
    """
    from clbench.report.figures.style import FAINT, INK, LEGEND, RULE, file_bytes

    with _everything_visible(drawn.figure):
        svg = file_bytes(drawn.figure, "svg", background="none").decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(rf'id="{TAG}(\d+)-(\w+)"', r'class="series \2" data-row="\1"', svg)
    svg = re.sub(rf'id="({LEGEND}|{NAMES})"', r'class="\1"', svg)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#|url\(#', lambda match: match[0] + prefix, svg)
    # A hundredth of a point is enough for coordinates; factors below one keep their digits.
    svg = re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", svg)
    svg = svg.replace(INK, "currentColor").replace(RULE, "var(--rule)")
    svg = svg.replace(FAINT, "var(--faint)")
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip())


@contextmanager
def _everything_visible(figure: Figure) -> Iterator[None]:
    """Show what a figure hides of methods that do not stand out: they may be chosen on the page."""
    hidden = [
        artist
        for artist in figure.findobj()
        if (artist.get_gid() or "").startswith(TAG) and not artist.get_visible()
    ]
    for artist in hidden:
        artist.set_visible(True)
    try:
        yield
    finally:
        for artist in hidden:
            artist.set_visible(False)


def _asset(name: str) -> str:
    return (files("clbench.report.page") / name).read_text(encoding="utf-8")
