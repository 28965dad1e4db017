"""What figures of studies show."""

from matplotlib.axes import Axes

from clbench.report.figures.style import figure_settings, settle
from clbench.studies.figures import Curve, Panel, draw_curves


def tick_labels(y: list[float]) -> list[str]:
    """Labels of the ticks within a logarithmic y axis."""
    with figure_settings():
        figure = draw_curves([Panel("", "", "", [Curve("a", [1, 2], y)], log_y=True)])
        settle(figure)
        ax: Axes = figure.axes[0]
        low, high = ax.get_ylim()
        return [t.get_text() for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high]


def test_logarithmic_axes_have_plain_numbers_and_enough_of_them() -> None:
    assert tick_labels([0.04, 0.2]) == ["0.05", "0.1", "0.2"]
    assert tick_labels([0.9, 110.0]) == ["1", "10", "100"]


def test_the_legend_shows_lines_where_there_are_lines() -> None:
    curves = [Curve("dots", [1, 2], [3, 4], joined=False), Curve("line", [1, 2], [3, 4])]
    with figure_settings():
        (legend,) = draw_curves([Panel("", "", "", curves)]).legends
    drawn = {
        text.get_text(): line for text, line in zip(legend.texts, legend.get_lines(), strict=True)
    }
    assert drawn["dots"].get_linestyle() == "None"
    assert drawn["dots"].get_marker() not in ("None", "")
    assert drawn["line"].get_linestyle() != "None"
