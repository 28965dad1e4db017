"""Two processes that train together: the numbers of one, also after a restart within a task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Sampler

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.datamodules.sequence import Share, StepSampler
from clbench.engine.process.world import leading
from clbench.engine.rundir.checkpoints import CheckpointStore

RUN = [sys.executable, "-m", "clbench.cli.app", "run", "--quick", "-q"]


def test_shares_are_the_batch() -> None:
    whole = StepSampler(10, 4, 5, seed=1)
    shares = [list(Share(whole, rank, 2)) for rank in range(2)]
    assert len(Share(whole, 0, 2)) == 5
    for batch, first, second in zip(whole, *shares, strict=True):
        assert first == batch[::2]
        assert second == batch[1::2]
    positions: Any = [[(0, 7), (1, 3)]]
    sampler: Sampler[Any] = positions
    assert list(Share(sampler, 1, 2)) == [[(1, 3)]]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    settings = RunSettings.model_validate({"devices": 3, "train": {"batch_size": 32}})
    with (
        pytest.raises(ClbenchError, match="batch_size=32 cannot be shared by devices=3"),
        leading(settings, tmp_path, torch.device("cpu")),
    ):
        pass


def test_one_process_has_the_hash_of_runs_before_there_could_be_two() -> None:
    one, two = RunSettings(), RunSettings.model_validate({"devices": 2})
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint() == RunSettings.model_validate({"devices": 1}).fingerprint()


def start(runs: Path, method: str, devices: int, *more: str) -> subprocess.Popen[str]:
    options = ["--method", method, "--set", f"devices={devices}", "--runs-dir", str(runs), *more]
    return subprocess.Popen(
        [*RUN, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], runs: Path) -> tuple[RunResult, list[dict[str, Any]]]:
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors
    (file,) = runs.glob("mini/*/*/result.json")
    lines = (file.parent / "metrics.jsonl").read_text().splitlines()
    return RunResult.load(file), [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), [("lora", ["--set", "method.dropout=0"])])
def test_two_processes_give_the_numbers_of_one_also_when_restarted_within_a_task(
    method: str, options: list[str], tmp_path: Path
) -> None:
    one, losses = finished(start(tmp_path / "one", method, 1, *options), tmp_path / "one")
    two, _ = finished(start(tmp_path / "two", method, 2, *options), tmp_path / "two")
    cut = tmp_path / "cut"
    process = start(cut, method, 2, *options, "--set", "checkpoint_every.steps=1")
    while not list(cut.rglob("task-002-step-*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    (folder,) = cut.glob("mini/*/*")
    assert CheckpointStore(folder).positions()
    resumed, again = finished(start(cut, method, 2, *options), cut)
    assert len(resumed.provenance["resumed"]) == 1
    assert resumed.accuracy == two.accuracy, "bit for bit against two processes"
    for key, value in one.summary.items():
        assert resumed.summary[key] == pytest.approx(value, abs=1e-5), key
    assert [r["step"] for r in again] == [r["step"] for r in losses]
    for first, second in zip(losses, again, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_a_clear_line(tmp_path: Path) -> None:
    process = start(tmp_path, "lora", 2, "--set", "checkpoint_every.steps=1")
    while not list(tmp_path.rglob("task-000-step-*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    followers = [
        int(child)
        for child in children
        if b"clbench.launch.follow" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(followers[0], signal.SIGKILL)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2, errors
    assert "one of the processes that train together died" in errors
    assert len(errors.splitlines()) == 1
