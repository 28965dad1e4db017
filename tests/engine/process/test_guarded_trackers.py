"""Trackers see a run, and cannot touch it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import stages
from clbench.engine.process.guarded_trackers import GuardedTrackers
from clbench.engine.process.progress import QuietReporter
from clbench.methods.finetune import Finetune
from clbench.methods.lora import LoRA
from tests.engine.test_runner import Interrupt

Run = Callable[..., RunResult]


class Recorder:
    """Writes down what it is told, draws random numbers, and may fail at an event."""

    name = "recorder"

    def __init__(self, fail: str = "", error: type[BaseException] = RuntimeError) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.fail = fail
        self.error = error

    def begin(self, result: RunResult, folder: Path) -> None:
        self._note("begin", result.matrix.learned)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        self._note("losses", step, *sorted(values))

    def row(self, result: RunResult) -> None:
        self._note("row", result.matrix.learned, result.status)

    def end(self, finished: bool) -> None:
        self._note("end", finished)

    def _note(self, *event: Any) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        self.events.append(event)
        if event[0] == self.fail:
            raise self.error("no\nspace left")


class Notes(QuietReporter):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def weights(folder: Path) -> bytes:
    (path,) = folder.rglob("task-003.safetensors")
    return path.read_bytes()


def test_events_come_in_order_with_steps_over_all_tasks(run: Run) -> None:
    tracker = Recorder()
    run(Finetune(), trackers=[tracker], steps=25)
    names = ("classification", "loss", "lr")
    expected: list[tuple[Any, ...]] = [("begin", 0)]
    for task, status in ((0, "partial"), (1, "partial"), (2, "complete")):
        expected += [("losses", 25 * task + 20, *names), ("losses", 25 * task + 25, *names)]
        expected.append(("row", task + 1, status))
    assert tracker.events == [*expected, ("end", True)]


def test_a_tracker_changes_nothing(run: Run, tmp_path: Path) -> None:
    plain = run(LoRA(rank=4, dropout=0.1), runs_dir=tmp_path / "plain")
    watched = run(LoRA(rank=4, dropout=0.1), runs_dir=tmp_path / "watched", trackers=[Recorder()])
    assert watched.accuracy == plain.accuracy
    assert weights(tmp_path / "watched") == weights(tmp_path / "plain")


@pytest.mark.parametrize("event", ["begin", "losses", "row", "end"])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_tracker_that_fails_is_left_out(
    event: str, error: type[BaseException], tmp_path: Path, make_trackers_run: Any
) -> None:
    broken, sound, notes = Recorder(event, error), Recorder(), Notes()
    make_trackers_run([broken, sound], notes.note)
    assert [name for name, *_ in sound.events] == ["begin", "losses", "row", "end"]
    assert broken.events[-1][0] == event
    (text,) = notes.texts
    assert text == (
        f"recorder failed and was dropped; the run continues ({error.__name__}: no space left)"
    )


@pytest.fixture
def make_trackers_run(run: Run, tmp_path: Path) -> Callable[..., None]:
    """Tells guarded trackers the events of a short run."""
    result = run(Finetune(), runs_dir=tmp_path / "source", steps=1)

    def tell(trackers: list[Any], note: Callable[[str], None]) -> None:
        guarded = GuardedTrackers(trackers, note)
        guarded.begin(result, tmp_path)
        guarded.losses(1, {"loss": 1.0})
        guarded.row(result)
        guarded.end(finished=True)

    return tell


def test_a_run_ends_like_itself_when_its_tracker_fails(run: Run, tmp_path: Path) -> None:
    plain = run(Finetune(), runs_dir=tmp_path / "plain")
    notes = Notes()
    failing = Recorder("losses")
    result = run(Finetune(), runs_dir=tmp_path / "b", trackers=[failing], reporter=notes)
    assert result.accuracy == plain.accuracy
    assert len(notes.texts) == 1
    assert [name for name, *_ in failing.events] == ["begin", "losses"]


def test_ctrl_c_inside_a_tracker_stops_the_run(make_trackers_run: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_trackers_run([Recorder("row", KeyboardInterrupt)], lambda text: None)


def test_an_interrupted_run_ends_unfinished_and_begins_where_it_stopped(run: Run) -> None:
    first, second = Recorder(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        run(Finetune(), trackers=[first], reporter=Interrupt(task=1))
    assert first.events[-2:] == [("row", 1, "partial"), ("end", False)]
    run(Finetune(), trackers=[second])
    assert second.events[0] == ("begin", 1)
    assert [event[1] for event in second.events if event[0] == "row"] == [2, 3]


def test_a_run_that_fails_before_row_zero_tells_trackers_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ClbenchError("no data")

    monkeypatch.setattr("clbench.engine.runner.SequenceRunner._row_zero", fail)
    tracker = Recorder()
    with pytest.raises(ClbenchError, match="no data"):
        run(Finetune(), trackers=[tracker])
    assert tracker.events == []


def test_stages_repeat_what_a_tracker_was_told(run: Run, tmp_path: Path) -> None:
    tracker = Recorder()
    result = run(Finetune(), trackers=[tracker], steps=25)
    (record,) = tmp_path.rglob("metrics.jsonl")
    told = [event[1] for event in tracker.events if event[0] == "losses"]
    found = list(stages(result, record.parent))
    assert [step for stage in found for step, _ in stage.losses] == told
    assert [(stage.learned, stage.steps) for stage in found] == [(0, 0), (1, 25), (2, 50), (3, 75)]
    assert all(stage.tested for stage in found)
    with record.open("a") as file:
        file.write('{"task": 4, "step": 20, "lr": 0.1, "loss": 1.5}\n')
    *_, last = stages(result, record.parent)
    assert (last.learned, last.tested) == (4, False)
    assert last.losses == ((95, {"lr": 0.1, "loss": 1.5}),)
