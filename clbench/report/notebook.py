"""Single results as notebooks show them: a table and any figure of the reports."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.results.result import RunResult
from clbench.report.formats.render import to_html
from clbench.report.tables.frames import summary_table
from clbench.report.tables.grid import matrix_grid, summary_grid
from clbench.report.tables.groups import comparable_groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NotebookDisplay:
    """What `clbench.core.results.display.Display` asks for."""

    def html(self, result: RunResult) -> str:
        """A heading, the row of the summary, and the accuracy matrix."""
        (group,) = comparable_groups([result])
        heading = f"{result.method.name}, seed {result.seed}: {group.title}"
        summary = to_html(summary_grid(summary_table([result]), group.setting))
        matrix = to_html(matrix_grid(result.matrix.to_frame()))
        return f"<h4>{html.escape(heading)}</h4>\n{summary}{matrix}"

    def plot(self, result: RunResult, kind: str) -> Figure:
        """One of the figures of a report, of this run alone.

        Raises:
            ClbenchError: there is no such figure, or the run has no numbers for it.
        """
        from clbench.report.figures.draw import draw_figure, figure_names

        names = figure_names([result])
        if kind not in names:
            raise unknown_name("figure", kind, names)
        drawn = draw_figure(kind, [result])
        if drawn is None:
            raise ClbenchError(f"the run of {result.method.name!r} has no numbers for {kind!r}")
        return drawn.figure
