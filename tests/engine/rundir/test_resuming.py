"""A run that was stopped anywhere ends like one that never was, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor

from clbench import registry
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError, Stopped
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.datamodules.sequence import TaskSequence
from clbench.engine import runner
from clbench.engine.process import randomness
from clbench.engine.process.progress import QuietReporter
from clbench.engine.rundir.checkpoints import CheckpointStore, Position
from clbench.engine.rundir.state_tree import pack, unpack
from clbench.methods.finetune import Finetune
from clbench.methods.lora import LoRA
from clbench.methods.zeroshot import ZeroShot

Run = Callable[..., RunResult]

SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "milora": {"rank": 4},
    "nusa": {"rank": 8},
    "gnsp": {"reference_count": 12, "reference_batch": 6},
    "gift": {"reference": "task", "reference_count": 12, "reference_batch": 6},
    "icarl": {"capacity": 12, "reference_batch": 6},
    "lwf": {"reference_batch": 6},
    "lwf_vr": {"sentences": 12, "reference_batch": 6},
    "zscl": {"reference": "task", "captions": "task", "reference_batch": 6, "average_every": 2},
}
ALWAYS = {"condu", "nusa"}
"""Methods with state of most kinds; the others go on, too, in the slow tests."""
TRAINING = [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
    for name in registry.method_names()
    if not registry.method(name).traits & {"trains-nothing", "trains-at-once"}
]


def small(name: str) -> Method:
    return registry.method(name)(**SMALL.get(name, {}))


class Signal(QuietReporter):
    """Sends this process a signal at a step of a task, or after some tested images of a row."""

    def __init__(self, task: int = -1, step: int = 0, row: int = -1, number: int = signal.SIGTERM):
        self.task, self.step, self.in_row, self.number = task, step, row, number
        self.current, self.steps, self.rows = -1, 0, -1
        self.notes: list[str] = []

    def training(self, task: int, steps: int) -> None:
        self.current, self.steps = task, 0

    def stepped(self) -> None:
        self.steps += 1
        if (self.current, self.steps) == (self.task, self.step):
            os.kill(os.getpid(), self.number)

    def testing(self, images: int) -> None:
        self.rows += 1

    def tested(self, images: int) -> None:
        if self.rows == self.in_row:
            self.in_row = -1
            os.kill(os.getpid(), self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of clbench's runs after it but what `finally` must."""


class Kill(Signal):
    """Ends the run without warning, as SIGKILL does, at a step of a task."""

    def stepped(self) -> None:
        self.steps += 1
        if (self.current, self.steps) == (self.task, self.step):
            raise Killed


def folder(runs: Path) -> Path:
    (found,) = runs.rglob("result.json")
    return found.parent


def outcome(runs: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on how often it was stopped."""
    run = folder(runs)
    result = json.loads((run / "result.json").read_text())
    (weights,) = (run / "checkpoints").glob("*.safetensors")
    return {
        "weights": weights.read_bytes(),
        "state": json.loads(weights.with_suffix(".json").read_text())["content"]["state"],
        "losses": (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else "",
        "bits": {path.name: path.read_bytes() for path in (run / "correct").iterdir()},
        "steps": result["cost"]["steps"],
        **{key: result.get(key) for key in ("accuracy", "summary", "footprint", "effective_rank")},
    }


@pytest.mark.parametrize("name", TRAINING)
def test_stopped_within_a_task_within_a_test_and_again(name: str, run: Run, tmp_path: Path) -> None:
    """Stopped in the first task, killed in the second after a checkpoint, stopped in a test."""
    options: dict[str, Any] = {"steps": 7, "precision": "fp32"}
    run(small(name), runs_dir=tmp_path / "whole", **options)
    cut: dict[str, Any] = {"runs_dir": tmp_path / "cut", **options}
    with pytest.raises(Stopped):
        run(small(name), reporter=Signal(task=0, step=3), **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions() == [Position(0, 3)]
    every = {"steps": 2}
    with pytest.raises(Killed):
        run(small(name), reporter=Kill(task=1, step=6), checkpoint_every=every, **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions()[0] == Position(1, 4)
    with pytest.raises(Stopped):
        run(small(name), reporter=Signal(row=0), **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions()[0] == Position(2)
    assert RunResult.load(folder(tmp_path / "cut")).matrix.learned == 1
    resumed = run(small(name), **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    places = [entry.split(maxsplit=1)[1] for entry in resumed.provenance["resumed"]]
    assert places == ["after step 3 of task0", "after step 4 of task1", "after task 2/3"]


def test_a_training_on_all_tasks_at_once_goes_on(run: Run, tmp_path: Path) -> None:
    run(small("joint"), runs_dir=tmp_path / "whole", steps=5)
    cut: dict[str, Any] = {"runs_dir": tmp_path / "cut", "steps": 5}
    with pytest.raises(Stopped):
        run(small("joint"), reporter=Signal(task=0, step=7), **cut)
    assert CheckpointStore(folder(tmp_path / "cut")).positions() == [Position(0, 7)]
    run(small("joint"), **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    "settings",
    [
        {"train": {"steps": 7, "batch_size": 5, "lr": 1e-3, "clip_grad_norm": 0.5}},
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"deterministic": True}, marks=pytest.mark.slow),
        pytest.param(
            {
                "seed": 3,
                "train": {"steps": {"default": 7, "task1": 9}, "batch_size": 30, "lr": 1e-3},
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["clipped", "bf16", "deterministic", "steps-by-task"],
)
def test_every_kind_of_training_goes_on(
    settings: Mapping[str, Any], run: Run, tmp_path: Path
) -> None:
    method = {"rank": 4, "dropout": 0.5}
    run(LoRA(**method), runs_dir=tmp_path / "whole", **{"steps": 7, **settings})
    cut = {"steps": 7, **settings, "runs_dir": tmp_path / "cut"}
    with pytest.raises(Stopped):
        run(LoRA(**method), reporter=Signal(task=1, step=4), **cut)
    run(LoRA(**method), **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_every_generator_goes_on_where_it_stood(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With losses that hang on all that a method draws, stopped twice within a task."""
    loss = Finetune.loss

    def drawing(self: Finetune, batch: Batch) -> Mapping[str, Tensor]:
        drawn = 0.5 + random.random() + float(np.random.random()) + float(torch.rand(()))  # noqa: NPY002
        return {name: term * drawn for name, term in loss(self, batch).items()}

    monkeypatch.setattr(Finetune, "loss", drawing)
    run(Finetune(), runs_dir=tmp_path / "whole")
    for task, step in ((0, 2), (1, 4)):
        with pytest.raises(Stopped):
            run(Finetune(), runs_dir=tmp_path / "cut", reporter=Signal(task=task, step=step))
    run(Finetune(), runs_dir=tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_the_generators_are_those_that_were_captured() -> None:
    def draws() -> list[float]:
        numbers = [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()]  # noqa: NPY002
        return [*numbers, float(torch.rand(())), float(torch.randn(()))]

    for generator in (random, np.random):
        generator.seed(3)
    draws()
    tensors, tree = pack(randomness.capture())
    expected = [draws(), draws()]
    for generator in (random, np.random):
        generator.seed(4)
    draws()
    randomness.restore(unpack(tensors, json.loads(json.dumps(tree))))
    assert [draws(), draws()] == expected


def test_the_scale_of_the_loss_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision as on a GPU; the scale doubles after every three good steps."""
    scalers: list[torch.amp.GradScaler] = []
    make = runner.make_trainer

    def scaled(*args: Any, **options: Any) -> pl.Trainer:
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)
        scalers.append(scaler)
        trainer = make(*args, **options)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return trainer

    monkeypatch.setattr(runner, "make_trainer", scaled)
    run(Finetune(), runs_dir=tmp_path / "whole", steps=7)
    expected = [scaler.state_dict() for scaler in scalers]
    assert [state["scale"] for state in expected] == [64.0] * 3
    scalers.clear()
    with pytest.raises(Stopped):
        run(Finetune(), runs_dir=tmp_path / "cut", steps=7, reporter=Signal(task=1, step=4))
    run(Finetune(), runs_dir=tmp_path / "cut", steps=7)
    assert [scaler.state_dict() for scaler in scalers] == [
        expected[0],
        {**expected[1], "scale": 32.0, "_growth_tracker": 1},
        *expected[1:],
    ]
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_class_incremental_runs_go_on(
    run: Run, make_sequence: Callable[..., TaskSequence], tmp_path: Path
) -> None:
    for runs, reporter in (("whole", None), ("cut", Signal(task=2, step=2)), ("cut", None)):
        sequence = make_sequence(setting=Setting.CLASS_INCREMENTAL)
        try:
            run(Finetune(), sequence=sequence, runs_dir=tmp_path / runs, reporter=reporter)
        except Stopped:
            assert reporter is not None
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_method_that_trains_nothing_goes_on(
    run: Run, make_sequence: Callable[..., TaskSequence], tmp_path: Path
) -> None:
    # With other candidates after every task, no row of the zero-shot model is that of another.
    sequence = make_sequence(setting=Setting.CLASS_INCREMENTAL)
    run(ZeroShot(), sequence=sequence, runs_dir=tmp_path / "whole")
    for test in (0, 1):
        cut = {"sequence": sequence, "runs_dir": tmp_path / "cut"}
        with pytest.raises(Stopped):
            run(ZeroShot(), **cut, reporter=Signal(row=test))
    run(ZeroShot(), **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_and_handlers_are_put_back(
    number: int, run: Run, tmp_path: Path
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as caught:
        run(Finetune(), reporter=Signal(task=1, step=2, number=number))
    assert caught.value.signum == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert CheckpointStore(folder(tmp_path)).positions()[0] == Position(1, 2)
    text = (folder(tmp_path) / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert {record["task"] for record in records} == {1}, "half an interval is not logged"


@pytest.mark.slow
def test_a_signal_in_the_last_step_finishes_the_task_first(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(Finetune(), reporter=Signal(task=1, step=6))
    assert CheckpointStore(folder(tmp_path)).positions()[0] == Position(2)


@pytest.mark.parametrize("part", [".json", ".safetensors"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    part: str, run: Run, tmp_path: Path
) -> None:
    run(Finetune(), runs_dir=tmp_path / "whole")
    cut = tmp_path / "cut"
    every = {"steps": 2}
    with pytest.raises(Killed):
        run(Finetune(), runs_dir=cut, checkpoint_every=every, reporter=Kill(task=1, step=5))
    store = CheckpointStore(folder(cut))
    assert store.positions() == [Position(1, 4), Position(1, 2), Position(1)]
    path = store.folder / f"task-001-step-000004{part}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reporter = Signal()
    run(Finetune(), runs_dir=cut, reporter=reporter)
    assert "skipping a damaged checkpoint" in reporter.notes[0]
    assert reporter.notes[1] == "resuming after step 2 of task1"
    assert outcome(cut) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_without_the_start_of_the_task_an_earlier_task_is_learned_again(
    run: Run, tmp_path: Path
) -> None:
    run(Finetune(), runs_dir=tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        run(Finetune(), runs_dir=cut, reporter=Signal(task=2, step=1))
    store = CheckpointStore(folder(cut))
    assert store.positions() == [Position(2, 1), Position(2)]
    (store.folder / "task-002.safetensors").write_bytes(b"")
    reporter = Signal()
    run(Finetune(), runs_dir=cut, reporter=reporter)
    assert "starting from the beginning" in reporter.notes[-1]
    assert outcome(cut) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_the_lost_result_means_starting_anew(run: Run, tmp_path: Path) -> None:
    run(Finetune(), runs_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run(Finetune(), runs_dir=tmp_path / "cut", reporter=Signal(task=1, step=3))
    (folder(tmp_path / "cut") / "result.json").unlink()
    run(Finetune(), runs_dir=tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_copy_of_a_damaged_result_lets_the_run_go_on(run: Run, tmp_path: Path) -> None:
    run(Finetune(), runs_dir=tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        run(Finetune(), runs_dir=cut, reporter=Signal(task=1, step=3))
    path = folder(cut) / "result.json"
    good = path.read_bytes()
    path.write_bytes(good[:-9])
    with pytest.raises(ClbenchError, match="the checkpoint task-001-step-000003 beside it is"):
        run(Finetune(), runs_dir=cut)
    path.write_bytes(good)
    run(Finetune(), runs_dir=cut)
    assert outcome(cut) == outcome(tmp_path / "whole")


def test_costs_are_those_of_the_whole_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that advances a second per look, and is set back by a day for the restart."""
    with pytest.raises(Stopped):
        run(Finetune(), reporter=Signal(task=1, step=3))
    before = RunResult.load(folder(tmp_path)).cost
    stored = CheckpointStore(folder(tmp_path)).load(Position(1, 3)).counters["seconds"]
    assert stored["training"] > before.training_seconds, "the unfinished task counts"
    monkeypatch.setattr("time.time", lambda: 0.0)
    cost = run(Finetune()).cost
    assert cost.training_seconds >= stored["training"]
    assert cost.evaluation_seconds >= before.evaluation_seconds
    assert cost.peak_memory_bytes >= before.peak_memory_bytes
    assert cost.steps == 18


def test_nothing_is_saved_within_a_task_unless_it_is_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Position] = []
    save = CheckpointStore.save
    monkeypatch.setattr(
        CheckpointStore, "save", lambda s, c: (saved.append(c.position), save(s, c))[1]
    )
    run(Finetune(), runs_dir=tmp_path / "default")
    assert saved == [Position(1), Position(2), Position(3)]
    saved.clear()
    run(Finetune(), runs_dir=tmp_path / "often", checkpoint_every={"seconds": 1e-9})
    assert len(saved) == 3 * 6
    saved.clear()
    run(Finetune(), runs_dir=tmp_path / "steps", checkpoint_every={"steps": 4})
    assert [p for p in saved if p.step] == [Position(0, 4), Position(1, 4), Position(2, 4)]
    hashes = {folder(tmp_path / name).name for name in ("default", "often", "steps")}
    assert len(hashes) == 1, "how often a run saves is no part of its identity"


@pytest.mark.parametrize("change", ["images", "prompts", "weights"])
def test_inputs_that_changed_between_are_refused(
    change: str,
    run: Run,
    make_sequence: Callable[..., TaskSequence],
    make_model: Callable[[], Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(Stopped):
        run(Finetune(), reporter=Signal(task=1, step=2))
    before = (folder(tmp_path) / "result.json").read_bytes()
    sequence, model = make_sequence(), make_model()
    if change == "images":
        sequence.train_set(1).images[0, 0, 0, 0] += 1
    if change == "prompts":
        classes = sequence.benchmark.tasks[2].classes
        object.__setattr__(classes, "prompts", (("another",),) * len(classes))
    if change == "weights":
        with torch.no_grad():
            model.network.visual.proj[0, 0] += 1
    expected = {
        "images": r"since it began: the images of task1/train \(\w{16} is now \w{16}\)",
        "prompts": r"since it began: the prompts of task2 \(\w{16} is now \w{16}\)",
        "weights": r"since it began: the backbone's weights \(\w{16} is now \w{16}\)",
    }
    with pytest.raises(ClbenchError, match=expected[change]):
        run(Finetune(), sequence=sequence, model=model)
    assert (folder(tmp_path) / "result.json").read_bytes() == before


def test_another_machine_is_noted(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(Finetune(), reporter=Signal(task=1, step=2))
    path = folder(tmp_path)
    result = RunResult.load(path)
    result.provenance["threads"] = 99
    result.save(path / "result.json")
    reporter = Signal()
    run(Finetune(), reporter=reporter)
    assert "with other threads than before" in reporter.notes[0]


def test_a_checkpoint_holds_only_tensors_and_json(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(Finetune(), reporter=Signal(task=0, step=2))
    store = CheckpointStore(folder(tmp_path))
    files = {path.suffix for path in store.folder.iterdir()}
    assert files == {".json", ".safetensors"}
    tensors = load_file(store.folder / "task-000-step-000002.safetensors")
    assert any(name.startswith("training/optimizer/state/0/exp_avg") for name in tensors)
