"""Tables in the terminal: everything readable at the widths people have."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RunResult
from clbench.report.console import (
    abbreviate,
    matrix_console,
    published_list,
    render_console,
)
from clbench.report.tables.grid import percent
from clbench.report.tables.matrix_csv import read_matrix_csv

MakeResult = Callable[..., RunResult]
PUBLISHED = Path(__file__).parents[1] / "data" / "published"


def printed(renderable: RenderableType, width: int, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
    )
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [70, 80, 100, 120])
def test_summary_numbers_are_never_cut(study: list[RunResult], width: int) -> None:
    text = printed(render_console(study), width)
    for whole in ("Transfer", "Avg", "Last", "45.0 ± 3.5", "67.5 ± 3.5", "77.5 ± 3.5", "nusa"):
        assert whole in text
    assert max(map(len, text.splitlines())) <= width


def test_costs_are_left_out_where_space_is_short_which_is_said(study: list[RunResult]) -> None:
    wide, narrow = (printed(render_console(study), width) for width in (120, 70))
    assert "No room" not in wide
    (line,) = [line for line in narrow.splitlines() if line.startswith("No room")]
    left_out = line.removeprefix("No room at 70 columns for: ").partition(" (")[0]
    left_out = [title.strip() for title in left_out.split(", ")]
    assert left_out
    for title in ("Transfer", "Avg", "Last", "Forgetting", "Trainable", "Stored", "Training"):
        assert title in wide
        shown = any(title in other for other in narrow.splitlines() if other != line)
        assert shown != (title in left_out)


def test_the_width_that_shows_all_columns_does(study: list[RunResult]) -> None:
    found = re.search(
        r"(\d+) columns show all", " ".join(printed(render_console(study), 70).split())
    )
    assert found is not None
    assert "No room" not in printed(render_console(study), int(found[1]))
    assert "No room" in printed(render_console(study), int(found[1]) - 1)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_published_numbers_keep_all_their_columns(width: int) -> None:
    text = printed(published_list("nusa"), width)
    assert max(map(len, text.splitlines())) <= width
    for title in ("Transfer", "Avg", "Last"):
        assert title in text
    for number in ("68.6", "75.1", "82.8"):
        assert number in text


def test_groups_are_printed_with_the_reason(
    study: list[RunResult], make_result: MakeResult
) -> None:
    text = printed(render_console([*study, make_result(fingerprint="f2")]), 100)
    assert "Not to be compared with mini-I-ViT-B-16: backbone fingerprint f2, not f1." in text
    assert text.count("mini v1, order I, task-given, ViT-B-16 (openai)") == 2


def test_best_and_second_are_set_off(study: list[RunResult]) -> None:
    text = printed(render_console(study), 120, colour=True)
    assert "\x1b[1;32m45.0 ± 3.5\x1b[0m" in text
    assert "37.5\x1b[0m" in text.split("\x1b[4m", 1)[1][:30]


@pytest.mark.parametrize("width", [80, 100])
def test_eleven_tasks_fit_with_all_their_numbers(width: int) -> None:
    matrix = read_matrix_csv(PUBLISHED / "zscl.csv")
    lines = printed(matrix_console(matrix, width), width).splitlines()
    assert len(lines) == 13
    assert lines[0].split()[1:4] == ["Aircr", "Calte", "CIFAR"]
    for line, row in zip(lines[1:], matrix.values, strict=True):
        assert line.split()[1:] == [percent(value) for value in row]


def test_long_sequences_are_thinned_and_say_so() -> None:
    names = tuple(f"step {i}" for i in range(50))
    values = np.tile(np.linspace(0.01, 0.5, 50), (51, 1))
    text = printed(matrix_console(AccuracyMatrix(names, values), 80), 80)
    lines = text.splitlines()
    assert "10 of 50 tasks shown" in text
    assert lines[-2].split()[:2] == ["step", "49"]
    assert lines[1].split()[-1] == "50.0", "the last task is always shown"
    assert max(map(len, lines)) <= 80


def test_low_and_high_accuracies_differ_in_colour_and_missing_ones_have_none() -> None:
    matrix = AccuracyMatrix(("a", "b"), [[np.nan, np.nan], [1.0, np.nan], [0.0, 0.5]])
    text = printed(matrix_console(matrix), 80, colour=True)
    assert "\x1b[1;30;48;2;253;231;37m100.0" in text, "just learned: bold"
    assert "\x1b[37;48;2;68;1;84m  0.0" in text
    assert "zero-shot" not in text
    assert "nan" not in text


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_matrix_can_be_printed(value: float) -> None:
    matrix = AccuracyMatrix(("a",), [[value], [value]])
    assert f"{100 * value:.1f}" in printed(matrix_console(matrix), 80, colour=True)


def test_an_empty_matrix_can_be_printed() -> None:
    assert printed(matrix_console(AccuracyMatrix.empty(["a", "b"])), 80).split() == [
        "after",
        "a",
        "b",
    ]


@pytest.mark.parametrize("width", [3, 5, 8])
@pytest.mark.parametrize(
    "names",
    [
        [f"classes {10 * i}-{10 * i + 9}" for i in range(20)],
        ["StanfordCars", "StanfordDogs", "Stanf", "DTD"],
        [f"{i}" for i in range(30)],
    ],
)
def test_abbreviations_fit_and_stay_different(names: list[str], width: int) -> None:
    short = abbreviate(names, width)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= width


def test_abbreviations_keep_what_tells_names_apart() -> None:
    assert abbreviate(["StanfordCars", "StanfordDogs", "DTD"], 5) == ["Stars", "Stags", "DTD"]
    assert abbreviate(["Aircraft", "Caltech101"], 5) == ["Aircr", "Calte"]
