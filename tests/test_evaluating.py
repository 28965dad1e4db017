"""`clbench evaluate`: the row of any CLIP is what a run would have measured."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import clbench
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.evaluating import add_row
from clbench.report.tables.foreign import read_foreign
from tests.small_runs import run_small, write_tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("data") / "tasks")


@pytest.fixture(scope="module")
def run(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_small("finetune", tasks, tmp_path_factory.mktemp("runs"), backbone="mini")


def options(tasks: Path) -> dict[str, object]:
    return {"device": "cpu", "data_root": str(tasks.parent / "cache")}


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "-q", *map(str, arguments)])


def test_the_rows_of_a_run_are_measured_again_and_make_its_matrix(
    run: RunResult, tasks: Path, tmp_path: Path
) -> None:
    assert run.path is not None
    clbench.export(run.path, tmp_path / "model")
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    out = tmp_path / "mine.csv"
    common = ["--benchmark", f"folder:{tasks}", "--root", tasks.parent / "cache", "--out", out]
    common += ["--set", "device=cpu"]
    first = evaluate("--backbone", "mini", *common, "--name", "Mine", "--source", "here", "--json")
    assert first.exit_code == 0, first.output
    shown = json.loads(first.output)
    assert list(shown["accuracy"].values()) == run.matrix.values[0].tolist()
    assert shown["backbone"]["fingerprint"] == run.backbone.fingerprint
    assert shown["digests"]["test images"]["task1"] == run.data.splits["task1/test"]
    assert shown["digests"]["prompts"] == run.data.prompts
    assert shown["mean"] == pytest.approx(run.matrix.values[0].mean())
    assert shown["provenance"]["packages"]["clbench"]
    last = evaluate("--backbone", weights, *common, "--after", "task1")
    assert last.exit_code == 0, last.output
    assert f"{100 * run.matrix.values[2, 0]:.2f} %" in last.output
    foreign = read_foreign(out)
    assert (foreign.name, foreign.source) == ("Mine", "here")
    assert foreign.matrix.to_lists()[0] == pytest.approx(run.matrix.to_lists()[0])
    assert foreign.matrix.to_lists()[1] == [None, None]
    assert foreign.matrix.to_lists()[2] == pytest.approx(run.matrix.to_lists()[2])


def test_a_row_is_replaced_and_other_tasks_are_refused(tasks: Path, tmp_path: Path) -> None:
    row = clbench.evaluate("mini", f"folder:{tasks}", settings=options(tasks), quiet=True)
    path = tmp_path / "m.csv"
    path.write_text("after,task0,task1\nzero-shot,0.99,0.01\ntask0,0.5,0.25\n")
    add_row(path, row)
    frame = pd.read_csv(path, index_col="after")
    assert frame.loc["zero-shot"].to_dict() == pytest.approx(row.accuracy)
    assert frame.loc["task0"].to_list() == [0.5, 0.25]
    path.write_text("after,task1,task0\nzero-shot,0.99,0.01\n")
    with pytest.raises(ClbenchError, match="holds the matrix of other tasks"):
        add_row(path, row)


def test_class_incremental_rows_know_what_was_learned(tasks: Path) -> None:
    settings = {**options(tasks), "benchmark.setting": "class-incremental"}
    with pytest.raises(ClbenchError, match="name the task that the model has learned last"):
        clbench.evaluate("mini", f"folder:{tasks}", settings=settings, quiet=True)
    first, both = (
        clbench.evaluate("mini", f"folder:{tasks}", after=task, settings=settings, quiet=True)
        for task in ("task0", "task1")
    )
    assert list(first.accuracy) == ["task0"]
    assert list(both.accuracy) == ["task0", "task1"]


def test_mistakes_are_one_line(tasks: Path) -> None:
    common = ["--backbone", "mini", "--benchmark", f"folder:{tasks}"]
    common += ["--root", tasks.parent / "cache"]
    for arguments, text in [
        (["--after", "task7"], "unknown task 'task7': did you mean"),
        (["--name", "Mine"], "name it with --out"),
        (["--backbone", "no/such.pt"], "does not exist"),
    ]:
        outcome = evaluate(*common, *arguments)
        assert outcome.exit_code == 2, outcome.output
        assert text in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
