"""Results as data frames, tables and figures in notebooks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import clbench
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.tidy import COLUMNS
from tests.made_up import INCREMENTAL, VALUES, MakeResult, shifted


@pytest.fixture
def folder(make_result: MakeResult, tmp_path: Path) -> Path:
    """Runs as they lie in run directories, one of them with another rank, one unfinished."""
    made = [
        make_result(seed=0, params={"rank": 8}),
        make_result(seed=1, params={"rank": 8}, values=shifted(0.05)),
        make_result(seed=0, params={"rank": 64}, config_hash="ffffffff"),
        make_result("lora", values=[*VALUES[:2], [None] * 3, [None] * 3], status="partial"),
    ]
    for i, result in enumerate(made):
        result.save(tmp_path / f"run{i}" / "result.json")
    return tmp_path


def test_all_runs_are_one_tidy_frame(folder: Path) -> None:
    frame = clbench.results(folder)
    assert frame.columns.to_list() == list(COLUMNS)
    assert len(frame) == 4 * 4 * 3, "a row per run, step and task"
    assert not frame.duplicated(["path", "step", "task"]).any()
    assert frame["label"].unique().tolist() == ["NuSA-CL (rank=8)", "NuSA-CL (rank=64)", "LoRA"]
    run = frame[frame["path"] == str((folder / "run1").resolve())]
    (row,) = run.query("after == 'clocks' and task == 'arrows'").to_dict("records")
    assert row["accuracy"] == pytest.approx(0.75)
    assert (row["step"], row["learned"], row["images"], row["seed"]) == (2, True, 100, 1)
    assert frame.query("status == 'partial' and step > 1")["accuracy"].isna().all()


def test_metrics_follow_from_the_frame_as_they_stand_in_the_result(folder: Path) -> None:
    frame = clbench.results([folder / "run0", folder / "run1"])
    for path, run in frame.groupby("path"):
        summary = clbench.load_result(str(path)).summary
        last = run[run["step"] == 3]["accuracy"].mean()
        unseen = run[(run["step"] > 0) & ~run["learned"]].groupby("task")["accuracy"].mean()
        assert last == pytest.approx(summary["last"])
        assert unseen.mean() == pytest.approx(summary["transfer"])


def test_the_frame_pivots_to_the_matrix(folder: Path) -> None:
    result = clbench.load_result(folder / "run1")
    frame = clbench.results(folder / "run1")
    matrix = frame.pivot(index="step", columns="task", values="accuracy")
    np.testing.assert_array_equal(matrix[list(result.matrix.tasks)], result.matrix.values)


def test_missing_and_damaged_results_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="does not exist"):
        clbench.results(tmp_path / "nowhere")
    (folder / "run0" / "result.json").write_text("{")
    with pytest.raises(ClbenchError, match="damaged"):
        clbench.results(folder)


def test_a_result_is_a_table_in_a_notebook(make_result: MakeResult) -> None:
    shown = make_result("<b>mine</b>")._repr_html_()
    assert "&lt;b&gt;mine&lt;/b&gt;, seed 0: mini v1" in shown
    assert "<b>mine" not in shown
    assert shown.count("<table") == 2
    assert "47.5" in shown


@pytest.mark.parametrize("kind", ["matrices", "sequence", "tradeoff", "forgetting"])
def test_a_result_draws_itself(make_result: MakeResult, kind: str) -> None:
    figure = make_result().plot(kind)
    assert isinstance(figure, Figure)
    assert figure.axes


def test_what_cannot_be_drawn_is_one_line(make_result: MakeResult) -> None:
    with pytest.raises(ClbenchError, match="unknown figure 'matrix': did you mean 'matrices'"):
        make_result().plot("matrix")
    with pytest.raises(ClbenchError, match="'nusa' has no numbers for 'effective-rank'"):
        make_result().plot("effective-rank")


def test_class_incremental_cells_before_a_task_are_missing(
    make_result: MakeResult, tmp_path: Path
) -> None:
    result = make_result(values=INCREMENTAL, setting=Setting.CLASS_INCREMENTAL)
    result.save(tmp_path / "result.json")
    frame = clbench.results(tmp_path)
    assert (frame["accuracy"].notna() == frame["learned"]).all()
    assert math.isnan(frame.loc[0, "accuracy"])
    assert isinstance(RunResult.load(tmp_path)._repr_html_(), str)
