"""Figures: nothing clipped or covered, styles told apart in grey, measured numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.figures.draw import (
    DrawnFigure,
    draw_all,
    draw_figure,
    draw_figures,
    write_figures,
)
from clbench.report.figures.labels import Mark, name_marks
from clbench.report.figures.matrices import COLOUR_MAP, luminance, text_colour
from clbench.report.figures.series import half_interval, make_series
from clbench.report.figures.style import (
    FORMATS,
    figure_settings,
    file_bytes,
    line_styles,
    short_labels,
)
from clbench.report.tables.groups import comparable_groups
from tests.made_up import VALUES, make_result, shifted
from tests.report.drawn_text import DrawnText, drawn_texts, outside, overlapping
from tests.report.studies import (
    MTIL,
    hostile_study,
    incremental_study,
    mtil_study,
    with_ranks,
)


def many_variants() -> list[RunResult]:
    """More methods than there are colours, with long names."""
    return [
        make_result(
            "lora",
            0,
            shifted(-0.03 * i),
            {"rank": 2**i, "dropout": 0.25 + i / 100},
            config_hash=f"{i:08x}",
        )
        for i in range(9)
    ]


STUDIES: dict[str, Callable[[], list[RunResult]]] = {
    "mtil": mtil_study,
    "one seed": lambda: mtil_study(seeds=(0,), methods=("zeroshot", "nusa", "gnsp")),
    "50 steps": incremental_study,
    "hostile": hostile_study,
    "variants": many_variants,
}


SELDOM = {"one seed", "variants"}
"""Studies whose figures are drawn where slow tests are wanted."""


def figures_of(results: list[RunResult]) -> dict[str, Figure]:
    (group,) = comparable_groups(results)
    return {drawn.name: drawn.figure for drawn in draw_figures(group)}


def figure_of(name: str, results: list[RunResult]) -> Figure:
    (group,) = comparable_groups(results)
    drawn = draw_figure(name, group.results)
    assert drawn is not None
    return drawn.figure


@pytest.fixture(scope="module")
def drawn() -> Callable[[str], dict[str, Figure]]:
    return functools.cache(lambda study: figures_of(STUDIES[study]()))


@pytest.mark.parametrize(
    "study",
    [pytest.param(s, marks=[pytest.mark.slow] if s in SELDOM else []) for s in STUDIES],
)
def test_text_is_neither_clipped_nor_covered(
    drawn: Callable[[str], dict[str, Figure]], study: str
) -> None:
    for name, figure in drawn(study).items():
        with figure_settings():
            texts, size = drawn_texts(figure)
        assert len(texts) > 5, name
        assert outside(texts, size) == [], name
        assert overlapping(texts) == [], name


def test_the_check_of_text_sees_clipped_and_covered_text() -> None:
    figure = Figure(figsize=(2, 1), dpi=100)
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "two")
    figure.text(0.99, 0.1, "clipped")
    figure.text(0.1, 0.1, "slanted", rotation=45)
    figure.text(0.1, 0.3, "slanted too", rotation=45)
    texts, size = drawn_texts(figure)
    assert outside(texts, size) == ["clipped"]
    assert overlapping(texts) == [("one", "two")], "parallel slanted lines do not touch"


@pytest.mark.parametrize("study", ["mtil", "50 steps"])
def test_every_data_set_or_step_can_be_told(
    drawn: Callable[[str], dict[str, Figure]], study: str
) -> None:
    with figure_settings():
        written = {text.text for text in drawn_texts(drawn(study)["matrices"])[0]}
    assert written >= (set(MTIL) if study == "mtil" else {"1", "10", "50"})


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if any(isinstance(c, QuadMesh) for c in ax.collections)][:5]


def cells(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_matrices_show_means_over_seeds_under_one_colour_scale() -> None:
    runs = [make_result("nusa", 0), make_result("nusa", 1, shifted(-0.1)), make_result("lora", 0)]
    axes = panels(figure_of("matrices", runs))
    lora, nusa = axes[0], axes[1]
    assert [lora.get_title("left"), nusa.get_title("left")] == ["lora", "nusa"]
    assert cells(lora) == [f"{100 * v:.0f}" for row in VALUES for v in row]
    assert cells(nusa)[3:6] == ["75", "35", "45"]  # 80 and 70, 40 and 30, 50 and 40
    meshes = [next(c for c in ax.collections if isinstance(c, QuadMesh)) for ax in (lora, nusa)]
    assert meshes[0].get_clim() == meshes[1].get_clim() == (20, 100)


def test_numbers_in_cells_can_be_read_on_every_shade() -> None:
    for position in np.linspace(0, 1, 50):
        cell = luminance(colormaps[COLOUR_MAP](position)[:3])
        text = luminance(to_rgb(text_colour(position)))
        contrast = (max(cell, text) + 0.05) / (min(cell, text) + 0.05)
        assert contrast >= 4.5, f"WCAG's minimum, at {position}"


def test_shades_keep_their_order_in_grey() -> None:
    greys = [luminance(colormaps[COLOUR_MAP](p)[:3]) for p in np.linspace(0, 1, 50)]
    assert greys == sorted(greys)


def test_fifty_steps_have_no_numbers_that_nobody_could_read(
    drawn: Callable[[str], dict[str, Figure]],
) -> None:
    assert [cells(ax) for ax in panels(drawn("50 steps")["matrices"])] == [[]] * 3


def test_methods_are_told_apart_without_colour() -> None:
    styles = line_styles(24)
    assert len({(str(s.dash), s.marker) for s in styles}) == 24
    assert len({(s.colour, str(s.dash)) for s in styles}) == 24


def test_sequence_panels_show_what_was_measured() -> None:
    runs = [make_result("nusa", 0), make_result("nusa", 1, shifted(-0.1))]
    axes = figure_of("sequence", runs).axes
    assert [ax.get_title("left") for ax in axes] == ["arrows", "clocks", "flags"]
    line = next(line for line in axes[0].lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(line.get_ydata(), [20, 75, 65, 55])
    spans = {round(np.ptp(ax.get_ylim()), 6) for ax in axes}
    assert len(spans) == 1, "slopes of different panels compare"


def test_long_sequences_show_some_tasks() -> None:
    tasks = tuple(f"task {i}" for i in range(30))
    values = [[0.5 + 0.01 * t] * 30 for t in range(31)]
    run = make_result("nusa", 0, values, tasks=tasks, counts=(10,) * 30)
    shown = [ax.get_title("left") for ax in figure_of("sequence", [run]).axes]
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == ("task 0", "task 29")


def test_class_incremental_runs_show_the_accuracy_on_all_classes_seen() -> None:
    values = [[None] * 3, [1.0, None, None], [0.6, 0.8, None], [0.5, 0.7, 0.9]]
    run = make_result("nusa", 0, values, setting=Setting.CLASS_INCREMENTAL)
    seen, left = figure_of("sequence", [run]).axes
    expected = [100.0, 100 * (60 + 160) / 300, 100 * (50 + 140 + 45) / 350]
    np.testing.assert_allclose(seen.lines[0].get_ydata(), expected)
    np.testing.assert_allclose(left.lines[0].get_ydata(), [50, 70, 90])


def test_marker_area_grows_with_training_time() -> None:
    runs = [
        make_result(name, 0, shifted(-0.02 * i), training_seconds=seconds)
        for i, (name, seconds) in enumerate({"lora": 10.0, "nusa": 20.0, "gnsp": 100.0}.items())
    ]
    ax = figure_of("tradeoff", runs).axes[0]
    areas = {
        float(c.get_offsets()[0][0]): float(c.get_sizes()[0])
        for c in ax.collections
        if isinstance(c, PathCollection)
    }
    found = [areas[100 * run.summary["transfer"]] for run in runs]  # type: ignore[operator]
    low, middle, high = sorted(found)
    assert found == [low, middle, high]
    assert middle - low == pytest.approx((high - low) * 10 / 90)


def test_every_name_stands_nearest_to_its_own_marker(
    drawn: Callable[[str], dict[str, Figure]],
) -> None:
    figure = drawn("mtil")["tradeoff"]
    ax = figure.axes[0]
    labels = [text for text in ax.texts if isinstance(text, Annotation)]
    assert {label.get_text() for label in labels} >= {"nusa", "gnsp", "lora", "zeroshot"}
    with figure_settings():
        figure.draw_without_rendering()
    centres = {label.get_text(): ax.transData.transform(label.xy) for label in labels}
    for label in labels:
        box = label.get_window_extent()
        distance = {
            name: math.dist((np.clip(x, box.x0, box.x1), np.clip(y, box.y0, box.y1)), (x, y))
            for name, (x, y) in centres.items()
        }
        assert min(distance, key=distance.__getitem__) == label.get_text()


def test_names_of_crowded_markers_do_not_cover_each_other() -> None:
    with figure_settings():
        figure = Figure(figsize=(4, 3))
        ax = figure.subplots()
        ax.set(xlim=(0, 10), ylim=(0, 10))
        name_marks(figure, ax, [Mark(f"name {i}", 5 + i / 50, 5, 30.0) for i in range(8)])
        texts: list[DrawnText] = drawn_texts(figure)[0]
    names = [text for text in texts if text.text.startswith("name")]
    assert len(names) == 8
    assert overlapping(names) == []


def intervals(figure: Figure) -> int:
    return sum(isinstance(c, LineCollection) for c in figure.axes[0].collections)


def test_forgetting_has_intervals_over_seeds_and_none_for_one_seed() -> None:
    several = [make_result("nusa", seed, shifted(-0.05 * seed)) for seed in range(3)]
    one = [make_result("lora", 0)]
    assert intervals(figure_of("forgetting", several)) == 1
    assert intervals(figure_of("forgetting", one)) == 0
    assert intervals(figure_of("forgetting", several + one)) == 1
    values = np.array([1.0, 2.0, 3.0])
    assert half_interval(values) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert math.isnan(half_interval(values[:1]))


def test_rank_curves_hold_recorded_values_and_need_some() -> None:
    run = with_ranks(make_result("nusa", 0), 0.01)
    axes = figure_of("effective-rank", [run, make_result("lora", 0)]).axes
    assert [ax.get_title("left") for ax in axes] == ["Text encoder", "Image encoder"]
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), [57.9, 58.9, 59.9, 60.9])
    assert len(axes[0].lines) == 2, "a curve and its markers, of the run that recorded ranks"
    assert "effective-rank" not in figures_of([make_result("nusa", 0)])


def test_partial_runs_are_drawn_as_far_as_they_came() -> None:
    values = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [None] * 3, [None] * 3]
    figures = figures_of([make_result("nusa", 0, values, status="partial")])
    assert set(figures) == {"sequence", "matrices"}
    assert cells(panels(figures["matrices"])[0]) == ["20", "30", "40", "80", "40", "50"]


def test_a_method_that_never_trains_is_a_reference_line() -> None:
    frozen = make_result("zero-shot", 0, [VALUES[0]] * 4)
    series, fixed = make_series([frozen, make_result("nusa", 0)])
    assert ([one.label for one in series], [one.label for one in fixed]) == (
        ["nusa"],
        ["zero-shot"],
    )
    assert "forgetting" not in figures_of([frozen])


def test_labels_are_shortened_in_the_middle_and_stay_different() -> None:
    labels = short_labels([f"lora (rank={r}, {'x' * 40}, lr=0.1)" for r in (1, 2, 3)], 20)
    assert len(set(labels)) == 3
    assert all(len(label) <= 20 for label in labels)
    assert short_labels(["a\nb\x00"], 10) == ["a?b?"]


@pytest.mark.slow
def test_files_are_written_in_all_formats_with_the_same_bytes(tmp_path: Path) -> None:
    study = [make_result("nusa", 0), make_result("nusa", 1, shifted(-0.1))]
    written = write_figures(draw_all(study), tmp_path / "once")
    write_figures(draw_all(study[::-1]), tmp_path / "again")
    names = {path.relative_to(tmp_path / "once").as_posix() for path in written}
    kinds = ("tradeoff", "forgetting", "sequence", "matrices")
    assert names == {f"figures/{kind}.{form}" for kind in kinds for form in FORMATS}
    for path in written:
        again = tmp_path / "again" / path.relative_to(tmp_path / "once")
        assert path.read_bytes() == again.read_bytes(), path.name
    assert (tmp_path / "once/figures/matrices.pdf").read_bytes().startswith(b"%PDF")


def test_files_name_neither_date_nor_version() -> None:
    figure = figure_of("forgetting", [make_result("nusa", 0)])
    for form in FORMATS:
        content = file_bytes(figure, form)
        assert b"Matplotlib" not in content
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content


def test_groups_get_folders_of_their_own(tmp_path: Path) -> None:
    groups = {"a": [], "b": [DrawnFigure("x", "", "", Figure())]}
    with figure_settings():
        paths = write_figures(groups, tmp_path)
    assert {path.parent for path in paths} == {tmp_path / "b" / "figures"}


def test_no_results_and_no_room_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="no results"):
        draw_all([])
    (tmp_path / "file").write_text("")
    with pytest.raises(ClbenchError, match="cannot write"):
        write_figures(draw_all([make_result("nusa", 0)]), tmp_path / "file")
