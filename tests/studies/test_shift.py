"""Reading the study `shift`, from made-up runs, and what it prepares."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.files import cached_file
from clbench.datamodules.mini.recipe import Recipe
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import shift
from clbench.studies.runs import Runs
from clbench.studies.study import find_study
from tests.studies.made_up_runs import make_run

RIGHT, WRONG, HALF = [True] * 4, [False] * 4, [True, True, False, False]
WHOLE = "clbench.datamodules.mini:clip.safetensors"
TENTH = Recipe().shortened(0.1).weights


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """After a tenth of the pretraining LoRA learns nothing on shifted images, NuSA-CL half."""
    start = [HALF, HALF]
    good, bad = [start, [RIGHT, HALF], [RIGHT, RIGHT]], [start, [HALF, WRONG], [HALF, HALF]]
    half = [start, [RIGHT, HALF], [RIGHT, HALF]]
    cells = [
        (WHOLE, "none", "nusa", good),
        (WHOLE, "none", "lora", good),
        (TENTH, "none", "nusa", good),
        (TENTH, "none", "lora", good),
        (TENTH, "random-labels", "nusa", half),
        (TENTH, "random-labels", "lora", bad),
    ]
    return Runs(
        [
            make_run(tmp_path, method, 0, rows, backbone__weights=weights, benchmark__shift=kind)
            for weights, kind, method, rows in cells
        ]
    )


def test_the_table_is_ordered_by_pretraining_and_shift(runs: Runs) -> None:
    rows = shift.table(runs).rows
    assert [row[:3] for row in rows] == [
        ("10 %", "none", "nusa"),
        ("10 %", "none", "lora"),
        ("10 %", "random-labels", "nusa"),
        ("10 %", "random-labels", "lora"),
        ("100 %", "none", "nusa"),
        ("100 %", "none", "lora"),
    ]
    assert {row[3] for row in rows} == {50.0}
    assert [row[5].value for row in rows] == [50, 50, 25, 0, 50, 50]


def test_numbers_compare_with_lora_with_no_shift_and_with_the_whole_pretraining(
    runs: Runs,
) -> None:
    found = shift.numbers(runs)
    assert found["zero-shot random-labels 10"] == "50.0"
    assert found["Δtransfer random-labels 10 lora"].startswith("-50.0")
    assert found["transfer random-labels 10 nusa minus lora"].startswith("+50.0")
    assert found["Δlast random-labels 10 nusa minus none"].startswith("-25.0")
    assert found["Δlast none 10 nusa minus 100"] == "0.0 [0.0, 0.0]"
    assert "Δlast random-labels 10 nusa minus 100" not in found  # that run is not there


def test_the_figure_has_the_same_scale_for_all_methods(runs: Runs) -> None:
    with figure_settings():
        axes = shift.draw(runs).axes
    assert [ax.get_xlabel() for ax in axes] == [
        f"{metric},\n{method}" for metric in ("Transfer", "Learned") for method in ("nusa", "lora")
    ]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[2].get_xlim() == axes[3].get_xlim() != axes[0].get_xlim()
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == ["10 %, none", "10 %, random-labels", "100 %, none"]


def test_the_file_names_the_weights_that_are_prepared() -> None:
    planned = find_study("shift").planned({})
    shares = [Recipe().shortened(share).weights for share in shift.SHARES]
    assert list(dict.fromkeys(s.backbone.weights for s, _ in planned)) == [*shares, WHOLE]


def test_only_missing_weights_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path))
    there = cached_file(TENTH)
    assert there is not None
    there.parent.mkdir(parents=True)
    there.touch()
    made = []

    def start(command: list[str], **_: object) -> SimpleNamespace:
        made.append(command[-2:])
        return SimpleNamespace(returncode=len(made) - 1)

    monkeypatch.setattr(shift.subprocess, "run", start)
    shift.prepare()
    assert made == [["--share", "0.5"]]
    with pytest.raises(ClbenchError, match="pretraining failed"):
        shift.prepare()
