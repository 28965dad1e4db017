"""The figures of a report: the list of them, their captions, and writing them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.core.files import write_atomic
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.figures.chosen import default_choice
from clbench.report.probed.tables import probes_of
from clbench.report.tables.groups import (
    ComparableGroup,
    beside_others,
    comparable_groups,
    file_name,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
_BANDS = "Bands are sample standard deviations over seeds."


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of one group of runs.

    Attributes:
        name: base name of its files.
        title: a heading.
        caption: what the figure shows, with the meaning of every mark.
        figure: drawn; `clbench.report.figures.style.file_bytes` writes it.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def draw_figures(
    group: ComparableGroup, chosen: Collection[str] | None = None
) -> Iterator[DrawnFigure]:
    """Draw every figure that the runs of a group have numbers for."""
    for name in figure_names(group.results):
        drawn = draw_figure(name, group.results, chosen)
        if drawn is not None:
            yield drawn


def figure_names(results: Sequence[RunResult]) -> list[str]:
    """The figures of runs that may be compared, in the order they are shown."""
    return list(_kinds(results))


def draw_figure(
    name: str, results: Sequence[RunResult], chosen: Collection[str] | None = None
) -> DrawnFigure | None:
    """Draw one figure of runs that may be compared; None if they have no numbers for it.

    Args:
        name: one of `figure_names`.
        results: the runs.
        chosen: names of the methods that stand out; None chooses for many methods.
    """
    # matplotlib takes half a second to import.
    from clbench.report.figures.style import figure_settings, settle

    title, caption, draw = _kinds(results)[name]
    with figure_settings():
        figure = draw(results, default_choice(results) if chosen is None else chosen)
        if figure is None:
            return None
        settle(figure)
    return DrawnFigure(name, title, caption, figure)


def draw_all(
    results: Iterable[RunResult], chosen: Collection[str] | None = None
) -> dict[str, list[DrawnFigure]]:
    """The figures of all groups of runs, by the name of the group.

    Args:
        results: runs of any benchmarks.
        chosen: names of the methods that stand out, others are grey; None chooses the baselines
            and the best of each family where there are many.

    Raises:
        ClbenchError: there are no results, or two contradict each other.
    """
    groups = comparable_groups(results)
    if chosen is None:
        chosen = default_choice(result for group in groups for result in group.results)
    return {group.name: list(draw_figures(group, chosen)) for group in groups}


def write_figures(figures: Mapping[str, Sequence[DrawnFigure]], out: Path) -> list[Path]:
    """Write figures as SVG, PDF and PNG; those of several groups into a folder each.

    The same results give the same bytes with the same version of matplotlib.

    Args:
        figures: from `draw_all`.
        out: folder of the report.

    Returns:
        The files written.

    Raises:
        ClbenchError: a file cannot be written.
    """
    return [
        path
        for name, drawn in figures.items()
        for figure in drawn
        for path in write_figure(figure, (out / name if len(figures) > 1 else out) / FOLDER)
    ]


def write_figure(drawn: DrawnFigure, folder: Path) -> list[Path]:
    """Write a figure in every format."""
    from clbench.report.figures.style import FORMATS, file_bytes

    paths = [folder / f"{drawn.name}.{form}" for form in FORMATS]
    for path, form in zip(paths, FORMATS, strict=True):
        write_atomic(path, file_bytes(drawn.figure, form))
    return paths


Draw = Callable[[Sequence[RunResult], Collection[str]], "Figure | None"]


def _kinds(results: Sequence[RunResult]) -> dict[str, tuple[str, str, Draw]]:
    """File name to title, caption and function, in the order they are shown."""
    from clbench.report.figures.curves import (
        draw_incremental,
        draw_probe,
        draw_ranks,
        draw_sequence,
    )
    from clbench.report.figures.matrices import draw_matrices
    from clbench.report.figures.points import draw_forgetting, draw_tradeoff

    shared = ", in part beside other runs" if any(map(beside_others, results)) else ""
    incremental = results[0].benchmark.setting is Setting.CLASS_INCREMENTAL
    over_sequence: tuple[str, str, Draw] = (
        "Accuracy on every task over the sequence",
        "All panels span the same number of points. Shaded: before the task is learned. Dotted: "
        f"zero-shot. {_BANDS}",
        draw_sequence,
    )
    over_steps: tuple[str, str, Draw] = (
        "Accuracy over the steps",
        f"Left: on all classes seen so far, over images. Right: what is left in the end. {_BANDS}",
        draw_incremental,
    )
    return {
        "tradeoff": (
            "Avg against Last" if incremental else "Transfer against Last",
            f"Area: mean training time of a run{shared}. Bars: sample standard deviations over "
            "seeds. Dotted: a method that trains nothing.",
            draw_tradeoff,
        ),
        "forgetting": (
            "Forgetting",
            "Mean over seeds with its 95 % t-interval (none for one seed); dots are seeds.",
            draw_forgetting,
        ),
        "sequence": over_steps if incremental else over_sequence,
        "matrices": (
            "Accuracy matrices",
            "Rows: after learning. Columns: tested on. Percent, mean over seeds, one colour scale "
            "for all methods. Above the stepped line, the task of the column has not been learned.",
            draw_matrices,
        ),
        "effective-rank": (
            "Effective rank of the attention weights",
            "Singular directions that hold 95 % of a weight's energy, as a share of all, mean over "
            f"the query, key, value and output projections of an encoder. {_BANDS}",
            draw_ranks,
        ),
        **{
            file_name(f"probe-{name}"): (
                f"Probe {name} over the sequence",
                f"One panel per measure, as defined in docs/probes.md. Dotted: zero-shot. {_BANDS}",
                partial(draw_probe, probe=name),
            )
            for name in probes_of(results)
        },
    }
