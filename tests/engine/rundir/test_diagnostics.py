"""Effective rank in results: rows that belong together, resuming, methods that train nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.clip.model import CLIP
from clbench.clip.subspaces.effective_rank import effective_rank
from clbench.core.results.result import RunResult
from clbench.engine.process.progress import QuietReporter
from clbench.engine.rundir.diagnostics import RankHistory
from clbench.methods.lora import LoRA
from clbench.methods.zeroshot import ZeroShot


class InterruptTask(QuietReporter):
    """Presses Ctrl-C when a task's training begins."""

    def __init__(self, task: int) -> None:
        self.task = task

    def training(self, task: int, steps: int) -> None:
        if task == self.task:
            raise KeyboardInterrupt


def test_a_run_records_the_model_before_training_and_after_every_task(
    run: Callable[..., RunResult], make_model: Callable[[], CLIP]
) -> None:
    method = LoRA(rank=4, alpha=4000.0)
    record = run(method, steps=2).effective_rank
    assert record is not None
    assert record.energy == 0.95
    assert set(record.values) == {"text", "vision"}
    for encoder, values in record.values.items():
        assert len(values) == 4
        assert values[0] == pytest.approx(effective_rank(make_model(), encoder), abs=1e-6)
        assert values[3] == pytest.approx(effective_rank(method.model, encoder), abs=1e-6)
    assert len(set(record.values["vision"])) > 1, "large updates change the rank"


def test_a_method_that_trains_nothing_records_nothing(run: Callable[..., RunResult]) -> None:
    result = run(ZeroShot())
    assert result.effective_rank is None
    assert '"effective_rank"' not in result.to_json()


def test_an_interrupted_run_keeps_what_it_measured(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    whole = run(LoRA(rank=4, alpha=4000.0), steps=2, runs_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(LoRA(rank=4, alpha=4000.0), steps=2, reporter=InterruptTask(1))
    resumed = run(LoRA(rank=4, alpha=4000.0), steps=2)
    assert resumed.effective_rank == whole.effective_rank


def test_rows_not_measured_are_unknown_and_the_state_can_be_put_back(tiny_clip: CLIP) -> None:
    history = RankHistory(2)
    assert history.record() is None
    history.measure(2, tiny_clip)
    record = history.record()
    assert record is not None
    assert record.values["text"][:2] == (None, None)
    assert record.values["text"][2] == pytest.approx(effective_rank(tiny_clip, "text"), abs=1e-6)
    other = RankHistory(2)
    other.load_state(history.state())
    assert other.record() == record
