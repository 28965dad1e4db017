"""Trackers from the command line: what W&B records offline is what the run directory says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import clbench
from clbench.cli.app import app
from tests.trackers.wandb_file import RecordedRun, read_runs


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def quick_run(runs: Path, *arguments: str) -> Result:
    return invoke("run", "--method", "nusa", "--quick", "--runs-dir", runs, *arguments)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, wandb_offline: dict[str, str]) -> None:
    for name, value in wandb_offline.items():
        monkeypatch.setenv(name, value)


def directory(runs: Path, method: str = "nusa") -> Path:
    (found,) = (runs / "mini" / method).iterdir()
    return found


def recorded(folder: Path) -> RecordedRun:
    (run,) = read_runs(folder)
    return run


def assert_equals_result(found: RecordedRun, folder: Path) -> None:
    """The history holds every row of the matrix, and the summary that of ``result.json``."""
    result = clbench.load_result(folder)
    points = [point for point in found.history if "task" in point]
    assert [point["task"] for point in points] == list(range(12))
    for point, row in zip(points, result.accuracy.values, strict=True):
        named = zip(result.benchmark.tasks, row, strict=True)
        assert all(point[f"accuracy/{task}"] == value for task, value in named)
    assert {key: found.summary[key] for key in result.summary} == result.summary
    assert found.summary["status"] == result.status == "quick"
    assert found.config["settings"] == result.config
    assert "quick" in found.run.tags


@pytest.mark.parametrize("method", ["nusa", "zeroshot"])
def test_a_wandb_run_equals_the_result(method: str, quick_runs: Path) -> None:
    folder = directory(quick_runs, method)
    assert_equals_result(recorded(folder), folder)


def test_a_run_that_is_complete_can_be_tracked_later(quick_runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / directory(quick_runs).relative_to(quick_runs)
    shutil.copytree(directory(quick_runs), folder, ignore=shutil.ignore_patterns("wandb*"))
    before = (folder / "result.json").read_bytes()
    for _ in range(2):  # the second time, all is there
        outcome = quick_run(tmp_path, "--logger", "wandb")
        assert "already complete" in outcome.stderr
    assert (folder / "result.json").read_bytes() == before
    assert_equals_result(recorded(folder), folder)
    live, late = recorded(directory(quick_runs)), recorded(folder)
    numbers = [
        [(p["step"], p["train/loss"]) for p in run.history if "step" in p] for run in (live, late)
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 11


@pytest.mark.slow
def test_trackers_change_no_number_and_say_how_to_sync(quick_runs: Path, tmp_path: Path) -> None:
    outcome = quick_run(tmp_path / "a", "--logger", "wandb,tensorboard")
    lines = [line for line in outcome.stderr.splitlines() if "W&B" in line or "wandb" in line]
    assert len(lines) == 1
    tracked = directory(tmp_path / "a")
    assert f"wandb sync {tracked}/wandb/offline-run-*" in lines[0]
    assert quick_run(tmp_path / "b").exit_code == 0
    plain = directory(tmp_path / "b")
    assert plain.name == tracked.name
    for name in ("metrics.jsonl", "matrix.csv"):
        assert (plain / name).read_bytes() == (tracked / name).read_bytes(), name
    weights = [next(folder.rglob("*.safetensors")).read_bytes() for folder in (plain, tracked)]
    assert weights[0] == weights[1]


def test_a_dashboard_is_specified_offline(quick_runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "spec.json"
    outcome = invoke("dashboard", "--entity", "team", quick_runs / "mini", "--out", out)
    assert outcome.exit_code == 0, outcome.output
    assert f"what would be sent is in {out}" in outcome.output
    assert "accuracy/textures" in out.read_text()


@pytest.mark.parametrize("command", ["run", "compare"])
def test_unknown_trackers_are_refused(command: str, tmp_path: Path) -> None:
    outcome = invoke(command, "--logger", "csv,wandbb", "--runs-dir", tmp_path)
    assert outcome.exit_code == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert "wandbb" in outcome.stderr
    assert "'wandb'" in outcome.stderr


def test_a_dashboard_without_tracked_runs_is_refused(tmp_path: Path) -> None:
    outcome = invoke("dashboard", "--entity", "team", tmp_path)
    assert outcome.exit_code == 2
    assert "--logger wandb" in outcome.stderr
