"""Figures of 33 methods: some stand out, the others are grey, and no label covers another."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex

from clbench.core.results.result import RunResult
from clbench.report.figures.chosen import default_choice
from clbench.report.figures.draw import draw_figure
from clbench.report.figures.series import TAG, make_series
from clbench.report.figures.style import FAINT, figure_settings
from tests.report.drawn_text import drawn_texts, outside, overlapping
from tests.report.studies import mtil_study, wide_study


@pytest.fixture(scope="module")
def runs() -> list[RunResult]:
    return wide_study()


@pytest.mark.parametrize("name", ["tradeoff", "forgetting", "effective-rank"])
def test_text_is_neither_clipped_nor_covered(runs: list[RunResult], name: str) -> None:
    drawn = draw_figure(name, runs)
    assert drawn is not None
    with figure_settings():
        texts, size = drawn_texts(drawn.figure)
    assert len(texts) > 11
    assert outside(texts, size) == []
    assert overlapping(texts) == []


def test_the_baselines_and_the_best_of_each_family_stand_out(runs: list[RunResult]) -> None:
    chosen = default_choice(runs)
    families: dict[str, dict[str, float]] = {}
    for run in runs:
        families.setdefault(run.method.family, {})[run.method.name] = run.summary["last"] or 0.0
    baselines = families.pop("Baselines")
    assert chosen == {*baselines, *(max(f, key=lambda name: f[name]) for f in families.values())}
    assert len(chosen) == 11


def test_of_a_few_methods_all_stand_out() -> None:
    runs = mtil_study(seeds=(0,))
    assert default_choice(runs) == {run.method.name for run in runs}


def test_what_was_chosen_is_coloured_named_and_above_the_others(runs: list[RunResult]) -> None:
    drawn = draw_figure("tradeoff", runs, {"nusa", "zscl"})
    assert drawn is not None
    ax = drawn.figure.axes[0]
    assert {text.get_text() for text in ax.texts} >= {"NuSA-CL", "ZSCL"}
    assert "EWC" not in {text.get_text() for text in ax.texts}
    marks = [mark for mark in ax.collections if (mark.get_gid() or "").startswith(TAG)]
    colours = {mark.get_gid(): to_hex(mark.get_facecolor()[0]) for mark in marks}
    series, _ = make_series(runs, {"nusa", "zscl"})
    strong = {f"{TAG}{one.number}-mark" for one in series if one.chosen}
    assert len({colours[gid] for gid in strong} - {FAINT}) == 2
    grey = {gid for gid, colour in colours.items() if colour == FAINT}
    assert len(grey) == 30
    heights = {mark.get_gid(): mark.get_zorder() for mark in marks}
    assert min(heights[gid] for gid in strong) > max(heights[gid] for gid in grey)


def test_only_chosen_methods_have_a_matrix(runs: list[RunResult]) -> None:
    drawn = draw_figure("matrices", runs, {"nusa", "zscl"})
    assert drawn is not None
    titles = {ax.get_title("left") for ax in drawn.figure.axes}
    assert titles - {""} == {"NuSA-CL", "ZSCL"}
