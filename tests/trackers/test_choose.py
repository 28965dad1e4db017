"""CSV and TensorBoard: what is written equals the run directory."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.trackers.choose import check_trackers, make_trackers
from clbench.trackers.csv_file import CsvTracker
from clbench.trackers.tensorboard import TensorBoardTracker
from tests.made_up import TASKS, VALUES, MakeResult

LOSSES = [
    {"task": 1, "step": 20, "lr": 0.1, "loss": 1.5},
    {"task": 1, "step": 30, "lr": 0.05, "loss": 1.25},
    {"task": 2, "step": 20, "lr": 0.1, "loss": 0.5, "distillation": 0.25},
]
STEPS = [20, 30, 50]


@pytest.fixture
def result(make_result: MakeResult, tmp_path: Path) -> RunResult:
    """After two of three tasks, with the losses in the folder."""
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in LOSSES))
    values = [*VALUES[:3], [None] * 3]
    return make_result(values=values, status="partial", steps=50)


def test_the_losses_are_a_table(result: RunResult, tmp_path: Path) -> None:
    CsvTracker().begin(result, tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["task", "step", "lr", "loss", "distillation"]
    assert rows == [
        ["arrows", "20", "0.1", "1.5", ""],
        ["arrows", "30", "0.05", "1.25", ""],
        ["clocks", "50", "0.1", "0.5", "0.25"],
    ]


def test_the_table_grows_with_the_run(
    result: RunResult, make_result: MakeResult, tmp_path: Path
) -> None:
    tracker = CsvTracker()
    tracker.begin(result, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"task": 3, "step": 10, "lr": 0.1, "loss": 2.0}\n')
    tracker.row(make_result())
    tracker.end(finished=True)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[-1] == "flags,60,0.1,2.0,"


def test_a_run_without_losses_has_an_empty_table(make_result: MakeResult, tmp_path: Path) -> None:
    CsvTracker().begin(make_result(), tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "task,step\n"


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def scalars(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(tag)]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="no tensorboard")
def test_tensorboard_holds_every_number_once(
    result: RunResult,
    make_result: MakeResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr("clbench.trackers.tensorboard.heatmap_image", lambda result: dot)
    first = TensorBoardTracker()
    first.begin(result, tmp_path)
    first.losses(60, {"loss": 9.0})  # of a task that is interrupted
    first.end(finished=False)
    second = TensorBoardTracker()
    second.begin(result, tmp_path)
    second.losses(60, {"loss": 2.0})
    second.row(make_result())
    second.end(finished=True)
    found = events(tmp_path)
    for column, task in enumerate(TASKS):
        expected = [(t, pytest.approx(row[column])) for t, row in enumerate(VALUES)]
        assert scalars(found, f"accuracy/{task}") == expected
    assert scalars(found, "train/loss") == [(20, 1.5), (30, 1.25), (50, 0.5), (60, 2.0)]
    assert scalars(found, "train/distillation") == [(50, 0.25)]
    for key, value in make_result().summary.items():
        assert scalars(found, f"summary/{key}")[-1] == (3, pytest.approx(value))
    assert [image.step for image in found.Images("matrix")] == [2, 3]


def test_a_missing_package_is_named_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ClbenchError, match=r"pip install 'clbench\[tensorboard\]'"):
        check_trackers(["csv", "tensorboard"])
    check_trackers(["csv", "wandb"])


def test_names_make_trackers() -> None:
    made = make_trackers(["wandb", "csv", "tensorboard"], note=lambda text: None)
    assert [tracker.name for tracker in made] == ["W&B", "csv", "TensorBoard"]


def test_heatmaps_show_what_is_known(make_result: MakeResult) -> None:
    from clbench.trackers.heatmap import heatmap_image

    known = [*VALUES[:2], [None] * 3, [None] * 3]
    image = heatmap_image(make_result(values=known, status="partial"))
    assert image is not None
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 4
    assert heatmap_image(make_result(values=[[None] * 3] * 4, status="partial")) is None
