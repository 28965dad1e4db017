from __future__ import annotations

import base64
import json
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clbench import registry
from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.correctness import (
    decode_rows,
    disagreement,
    encode_row,
    read_rows,
    row_file,
    write_row,
)
from clbench.core.results.result import LAUNCHED, RunResult
from clbench.core.task import Setting, Task
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.process.progress import QuietReporter
from clbench.methods.finetune import Finetune
from clbench.methods.zeroshot import ZeroShot

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


def small(name: str) -> Method:
    return registry.method(name)(**SMALL.get(name, {}))


class Recorder(Method):
    """Writes down which hooks the engine calls."""

    name = "recorder"
    paper = "https://example.org"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)
        self.calls.append("prepare")

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.calls.append(f"begin {task.name} {len(data)} {self.training}")

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        self.calls.append("loss")
        logits = self.model.logits(batch.images, self.model.encode_text(batch.prompts))
        return {"a": logits.square().mean(), "b": 2 * logits.mean()}

    def after_backward(self) -> None:
        assert self.model.network.visual.proj.grad is not None
        self.before = self.model.network.visual.proj.detach().clone()
        self.calls.append("backward")

    def after_step(self) -> None:
        assert not torch.equal(self.before, self.model.network.visual.proj)
        del self.before
        self.calls.append("step")

    def end_task(self, task: Task, data: TaskData) -> None:
        assert all(p.grad is None for p in self.parameters())
        self.calls.append(f"end {task.name} {self.training}")

    def get_extra_state(self) -> dict[str, list[str]]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        self.calls = state["calls"]


class Interrupt(QuietReporter):
    """Presses Ctrl-C at a step of a task."""

    def __init__(self, task: int, step: int = 2) -> None:
        self.task = task
        self.step = step
        self.current = -1
        self.steps = 0

    def training(self, task: int, steps: int) -> None:
        self.current, self.steps = task, 0

    def stepped(self) -> None:
        self.steps += 1
        if (self.current, self.steps) == (self.task, self.step):
            raise KeyboardInterrupt


class Notes(QuietReporter):
    """Remembers what the user is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_hooks_are_called_in_the_order_of_the_interface(run: Callable[..., RunResult]) -> None:
    method = Recorder()
    run(method, steps=2)
    step = ["loss", "backward", "step"]
    expected = ["prepare"]
    for t in range(3):
        expected += [f"begin task{t} 24 True", *step, *step, f"end task{t} False"]
    assert method.calls == expected


def test_losses_are_summed_and_logged_by_name(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    run(Recorder(), steps=2)
    (path,) = tmp_path.rglob("metrics.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["task"], r["step"]) for r in records] == [(1, 2), (2, 2), (3, 2)]
    for record in records:
        assert record["loss"] == pytest.approx(record["a"] + record["b"], rel=1e-5)


def test_zero_shot_rows_equal_a_plain_evaluation(
    run: Callable[..., RunResult],
    make_sequence: Callable[..., TaskSequence],
    make_model: Callable[[], CLIP],
) -> None:
    result = run(ZeroShot())
    model, sequence = make_model(), make_sequence()
    expected = []
    for t, task in enumerate(sequence.benchmark.tasks):
        images, labels = sequence.test_set(t).__getitems__(range(24))
        with torch.no_grad():
            logits = model.logits(images, model.class_features(task.classes))
        expected.append((logits.argmax(1) == labels).double().mean().item())
    assert result.status == "complete"
    np.testing.assert_allclose(result.matrix.values, [expected] * 4)
    assert result.accuracy.counts == (24, 24, 24)
    assert result.cost.steps == 0


class MergesByHand(Method):
    """Trains beside the model, and merges through ``.data``, which PyTorch does not count."""

    name = "by-hand"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.shift = torch.nn.Parameter(torch.ones(()))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"shift": self.shift.square()}

    def end_task(self, task: Task, data: TaskData) -> None:
        self.model.network.visual.proj.data.zero_()


def test_a_merge_that_pytorch_does_not_count_is_tested_anew(
    run: Callable[..., RunResult], tested: list[tuple[int, list[int]]]
) -> None:
    run(MergesByHand())
    # from then on the model stays as it is
    assert tested == [(0, [0, 1, 2]), (1, [0, 1, 2])]


def test_training_learns_and_counts_what_it_costs(run: Callable[..., RunResult]) -> None:
    result = run(Finetune(), steps=30)
    learned = [result.matrix.values[t + 1, t] for t in range(3)]
    assert np.mean(learned) > np.mean(result.matrix.values[0]) + 0.2
    assert result.cost.steps == 90
    assert result.cost.training_seconds > 0
    assert result.cost.peak_memory_bytes
    assert result.footprint.trainable > 0


def test_a_lost_checkpoint_means_starting_anew(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Finetune(), reporter=Interrupt(task=1))
    (checkpoint,) = tmp_path.rglob("task-*.safetensors")
    checkpoint.write_bytes(b"damaged")
    notes = Notes()
    assert run(Finetune(), reporter=notes).status == "complete"
    assert "does not have the hash" in notes.lines[0] or "cut short" in notes.lines[0]
    assert "starting from the beginning" in notes.lines[1]


def test_only_the_newest_checkpoint_is_kept(run: Callable[..., RunResult], tmp_path: Path) -> None:
    run(Finetune())
    names = sorted(p.name for p in tmp_path.rglob("task-*"))
    assert names == ["task-003.json", "task-003.safetensors"]


def test_seeds_change_results_and_repeat_them(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    first = run(Finetune(), seed=1, runs_dir=tmp_path / "a", steps=3)
    again = run(Finetune(), seed=1, runs_dir=tmp_path / "b", steps=3)
    other = run(Finetune(), seed=2, runs_dir=tmp_path / "c", steps=3)
    losses = [(tmp_path / d).rglob("metrics.jsonl").__next__().read_text() for d in ("a", "b", "c")]
    assert losses[0] == losses[1] != losses[2]
    np.testing.assert_array_equal(first.matrix.values, again.matrix.values)
    assert other.config_hash == first.config_hash


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_finished_tasks(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    class Diverging(Recorder):
        def loss(self, batch: Batch) -> Mapping[str, Tensor]:
            factor = float("nan") if "end task0 False" in self.calls else 1.0
            return {"a": factor * super().loss(batch)["a"]}

    with pytest.raises(ClbenchError, match=r"loss became nan.*train\.lr"):
        run(Diverging(), steps=2)
    (path,) = tmp_path.rglob("result.json")
    result = RunResult.load(path)
    assert (result.status, result.matrix.learned) == ("partial", 1)


def test_class_incremental_tests_seen_classes_among_seen_names(
    run: Callable[..., RunResult],
    make_sequence: Callable[..., TaskSequence],
    make_model: Callable[[], CLIP],
) -> None:
    sequence = make_sequence(setting=Setting.CLASS_INCREMENTAL)
    result = run(ZeroShot(), sequence=sequence)
    values = result.matrix.values
    assert np.isnan(values[0]).all()
    assert np.isnan(values[1]).tolist() == [False, True, True]
    model, benchmark = make_model(), sequence.benchmark
    classes = benchmark.tasks[0].classes + benchmark.tasks[1].classes
    images, labels = sequence.test_set(1).__getitems__(range(24))
    with torch.no_grad():
        predicted = model.logits(images, model.class_features(classes)).argmax(1)
    assert values[2, 1] == pytest.approx((predicted == labels + 3).double().mean().item())
    assert result.summary["last"] == pytest.approx(values[3].mean())
    assert result.summary["transfer"] is None


def test_task_hidden_scores_among_all_names(
    run: Callable[..., RunResult], make_sequence: Callable[..., TaskSequence], tmp_path: Path
) -> None:
    hidden = run(ZeroShot(), sequence=make_sequence(setting=Setting.TASK_HIDDEN))
    given = run(ZeroShot(), sequence=make_sequence(), runs_dir=tmp_path / "given")
    assert not np.isnan(hidden.matrix.values).any()
    assert (hidden.matrix.values <= given.matrix.values).all()
    assert hidden.matrix.values.mean() < given.matrix.values.mean()


def test_the_zero_shot_row_of_an_earlier_run_is_used(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    run(ZeroShot())
    (cache,) = (tmp_path / "runs").glob("zero-shot-*.json")
    content = json.loads(cache.read_text())
    rows = decode_rows(base64.b64decode(content["correct"]))
    wrong = {**rows[0], "task0": [True] * 3 + [False] * 21}
    content["correct"] = base64.b64encode(encode_row(0, wrong)).decode()
    cache.write_text(json.dumps(content))
    reused = run(ZeroShot(), seed=1)
    assert reused.matrix.values[0, 0] == 0.125
    (folder,) = tmp_path.rglob("seed1-*")
    assert decode_rows(row_file(folder, 0).read_bytes())[0]["task0"].sum() == 3
    cache.write_text("{damaged")
    assert run(ZeroShot(), seed=2).matrix.values[0, 0] != 0.125
    old = {"identity": content["identity"], "accuracy": {"0": 0.125, "1": 0.125, "2": 0.125}}
    cache.write_text(json.dumps(old))
    again = run(ZeroShot(), seed=3)
    assert again.matrix.values[0, 0] != 0.125, "caches without bits are tested again"
    assert "correct" in json.loads(cache.read_text())


def test_every_row_is_kept_image_by_image(
    run: Callable[..., RunResult],
    make_sequence: Callable[..., TaskSequence],
    make_model: Callable[[], CLIP],
    tmp_path: Path,
) -> None:
    result = run(ZeroShot())
    (path,) = tmp_path.rglob("result.json")
    rows = read_rows(path)
    assert list(rows) == [0, 1, 2, 3]
    assert disagreement(rows, result.matrix) is None
    model, sequence = make_model(), make_sequence()
    images, labels = sequence.test_set(1).__getitems__(range(24))
    with torch.no_grad():
        classes = model.class_features(sequence.benchmark.tasks[1].classes)
        expected = model.logits(images, classes).argmax(1) == labels
    for row in rows.values():
        np.testing.assert_array_equal(row["task1"], expected.numpy())


def test_a_resumed_run_keeps_the_bits_of_an_uninterrupted_one(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(Finetune(), runs_dir=whole)
    with pytest.raises(KeyboardInterrupt):
        run(Finetune(), runs_dir=cut, reporter=Interrupt(task=2))
    (partial,) = cut.rglob("result.json")
    # As if the run had stopped between a row and the result file that counts it.
    write_row(partial.parent, 3, {"task0": [False]})
    run(Finetune(), runs_dir=cut)
    resumed = {p.name: p.read_bytes() for p in cut.rglob("*.bits")}
    assert resumed == {p.name: p.read_bytes() for p in whole.rglob("*.bits")}
    assert len(resumed) == 4


def test_cuda_without_a_gpu_is_refused(run: Callable[..., RunResult]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ClbenchError, match="no CUDA device"):
        run(ZeroShot(), device="cuda")


def test_bf16_runs(run: Callable[..., RunResult]) -> None:
    assert run(Finetune(), precision="bf16").status == "complete"


def test_ctrl_c_works_again_after_an_interrupted_training(run: Callable[..., RunResult]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(Finetune(), reporter=Interrupt(task=0))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_result_says_who_launched_it_and_that_it_was_not_always_alone(
    run: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHED, raising=False)
    alone = run(ZeroShot(), runs_dir=tmp_path / "alone").provenance["launch"]
    node = socket.gethostname()
    assert alone == {"launcher": "none", "node": node, "devices": None, "shared": False}
    monkeypatch.setenv(LAUNCHED, '{"launcher": "local", "shared": true}')
    with pytest.raises(KeyboardInterrupt):
        run(Finetune(), reporter=Interrupt(task=1))
    monkeypatch.delenv(LAUNCHED)
    resumed = run(Finetune()).provenance["launch"]
    assert (resumed["launcher"], resumed["shared"]) == ("none", True)
