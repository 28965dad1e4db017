"""What goes wrong while a run goes on: one clear line, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError, DivergedError
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.task import ClassTexts, Task
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.rundir import checkpoints
from clbench.methods.finetune import Finetune
from clbench.methods.zeroshot import ZeroShot

Run = Callable[..., RunResult]


class Plain(Method):
    """Trains the image projection; what a test wants to go wrong is overridden."""

    name = "plain"
    paper = "https://example.org"

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)

    def begin_task(self, task: Task, data: TaskData) -> None:
        self.begun = int(task.name.removeprefix("task"))

    def get_extra_state(self) -> dict[str, int]:
        return {"begun": self.begun}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.begun = state["begun"]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        logits = self.model.logits(batch.images, self.model.encode_text(batch.prompts))
        return {"a": torch.nn.functional.cross_entropy(logits, batch.labels)}


def kept(tmp_path: Path) -> RunResult:
    (path,) = tmp_path.rglob("result.json")
    return RunResult.load(path)


def log(tmp_path: Path) -> str:
    (path,) = tmp_path.rglob("log.txt")
    return path.read_text()


def failing(tmp_path: Path, run: Run, method: Method, **options: Any) -> str:
    """Run a method that fails in the second task; the message, after a look at what is kept."""
    with pytest.raises(ClbenchError) as caught:
        run(method, steps=3, **options)
    message = str(caught.value)
    assert "\n" not in message
    result = kept(tmp_path)
    assert (result.status, result.matrix.learned) == ("partial", 1)
    return message


def resumes(run: Run) -> None:
    assert run(Plain(), steps=3).status == "complete"


def test_a_loss_that_is_not_finite_names_step_and_images(
    run: Run, tmp_path: Path, make_sequence: Callable[..., TaskSequence]
) -> None:
    seen: list[Tensor] = []

    class Diverging(Plain):
        def loss(self, batch: Batch) -> Mapping[str, Tensor]:
            if self.begun == 1:
                seen.append(batch.images)
            factor = float("inf") if len(seen) == 2 else 1.0
            return {"a": factor * super().loss(batch)["a"]}

    message = failing(tmp_path, run, Diverging())
    assert "the loss became inf at step 2 of this task" in message
    assert "train.lr" in message
    (line,) = [s for s in log(tmp_path).splitlines() if s.startswith("loss inf at step 2")]
    indices = [int(i) for i in line.partition("[")[2].rstrip("]").split(",")]
    images = make_sequence().train_set(1).__getitems__(indices)[0]
    assert torch.equal(images, seen[1])
    resumes(run)


def test_a_decomposition_that_fails_is_told_as_divergence(run: Run, tmp_path: Path) -> None:
    class Decomposing(Plain):
        def end_task(self, task: Task, data: TaskData) -> None:
            torch.linalg.eigh(torch.full((3, 3), torch.nan))

    with pytest.raises(DivergedError, match=r"a decomposition failed while .*train\.lr") as caught:
        run(Decomposing(), steps=1)
    assert caught.value.code == 3
    assert "LinAlgError" in log(tmp_path)


def test_a_broken_state_is_never_saved_over_a_good_one(run: Run, tmp_path: Path) -> None:
    class Diverging(Plain):
        def loss(self, batch: Batch) -> Mapping[str, Tensor]:
            return {"a": super().loss(batch)["a"] * (float("nan") if self.begun == 1 else 1.0)}

    failing(tmp_path, run, Diverging(), checkpoint_every={"steps": 1})
    (folder,) = tmp_path.rglob("checkpoints")
    names = {path.name for path in folder.iterdir()}
    assert not any("task-001-step" in name for name in names)
    resumes(run)


@pytest.mark.parametrize("hook", ["begin_task", "loss", "after_backward", "end_task", "classify"])
def test_an_exception_in_a_method_names_its_line_once(hook: str, run: Run, tmp_path: Path) -> None:
    class Broken(Plain):
        pass

    def fail(self: Plain, *args: Any) -> Any:
        if self.begun == 1:
            raise KeyError("a table of mine")
        return getattr(Plain, hook)(self, *args)

    if hook == "begin_task":

        def fail(self: Plain, *args: Any) -> Any:
            if args[0].name == "task1":
                raise KeyError("a table of mine")
            return Plain.begin_task(self, *args)

    setattr(Broken, hook, fail)
    message = failing(tmp_path, run, Broken())
    assert message.startswith("method 'plain' failed while ")
    assert message.count(f"{Path(__file__).name}:") == 1
    assert "KeyError: 'a table of mine'" in message
    assert "Traceback (most recent call last)" in log(tmp_path)
    resumes(run)


def test_an_error_that_is_nobodys_keeps_its_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "clbench.core.training.rate_factor",
        lambda *args: (_ for _ in ()).throw(ZeroDivisionError),
    )
    with pytest.raises(ZeroDivisionError):
        run(Finetune())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "lower train.batch_size (now 8)"),
        (MemoryError(), "lower train.batch_size (now 8)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "lower train.batch_size (now 8)",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly"),
            "a data-loading process died while training on task1",
        ),
    ],
)
def test_lack_of_memory_names_the_setting(
    error: Exception, expected: str, run: Run, tmp_path: Path
) -> None:
    class Hungry(Plain):
        def loss(self, batch: Batch) -> Mapping[str, Tensor]:
            if self.begun == 1:
                raise error
            return super().loss(batch)

    assert expected in failing(tmp_path, run, Hungry())


def test_lack_of_memory_in_a_test_names_the_setting(run: Run, tmp_path: Path) -> None:
    class Hungry(Plain):
        def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
            if self.begun == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().classify(images, candidates)

    assert "lower evaluation.batch_size (now 256)" in failing(tmp_path, run, Hungry())
    resumes(run)


def test_images_that_vanish_are_told(
    run: Run, tmp_path: Path, make_sequence: Callable[..., TaskSequence]
) -> None:
    sequence = make_sequence()
    images = sequence.train_set(1)
    reads: list[int] = []

    class Vanishing:
        def __getattr__(self, name: str) -> Any:
            return getattr(images, name)

        def __len__(self) -> int:
            return len(images)

        def __getitems__(self, indices: list[int]) -> Any:
            reads.append(len(indices))
            if len(reads) > 1:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/data/a.jpg")
            return images.__getitems__(indices)

    sequence._sets[1] = (Vanishing(), sequence.test_set(1))
    message = failing(tmp_path, run, Finetune(), sequence=sequence)
    assert "training on task1 failed" in message
    assert "/data/a.jpg" in message
    assert run(Finetune(), steps=3).status == "complete"


def test_a_full_disk_costs_nothing_that_was_finished(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.save_file
    calls: list[Path] = []

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    message = failing(tmp_path, run, Plain())
    assert "cannot write the checkpoint" in message
    assert "No space left" in message
    resumes(run)


# Breaches of the contract that a method does not notice itself.


class MovesFrozen(Plain):
    """Shifts a weight that it declared frozen."""

    @torch.no_grad()
    def after_step(self) -> None:
        if self.begun == 1:
            self.model.network.visual.class_embedding.data += 1e-6


class LeavesGradients(Plain):
    """Runs a backward pass of its own and forgets to clean up."""

    def end_task(self, task: Task, data: TaskData) -> None:
        if self.begun == 1:
            (self.model.network.visual.proj.sum()).backward()


class TrainsLogitScale(Plain):
    """Forgets that the logit scale never trains."""

    def begin_task(self, task: Task, data: TaskData) -> None:
        super().begin_task(task, data)
        self.model.network.logit_scale.requires_grad_(self.begun == 1)


class SwitchesGradientsOff(Plain):
    """Leaves a global switch off."""

    def begin_task(self, task: Task, data: TaskData) -> None:
        super().begin_task(task, data)
        torch.set_grad_enabled(self.begun != 1)


class DetachedLoss(Plain):
    """Returns a loss without a graph."""

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        loss = super().loss(batch)["a"]
        return {"a": loss.detach() if self.begun == 1 else loss}


class NotFinite(Plain):
    """Returns logits that are not numbers for a single image."""

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        logits = super().classify(images, candidates).clone()
        if self.begun == 1:
            logits[3, 0] = float("nan")
        return logits


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (MovesFrozen, r"changed 1 weights that it had frozen .* task1 \(first: .*class_embedding"),
        (LeavesGradients, "left gradients on 1 parameters in end_task of task1"),
        (TrainsLogitScale, "lets logit_scale require grad for task1"),
        (SwitchesGradientsOff, "left gradients switched off in begin_task of task1"),
        (DetachedLoss, "depends on nothing that requires grad while training on task1"),
        (NotFinite, "returned logits that are not finite"),
    ],
)
def test_a_method_that_breaks_its_contract_is_caught(
    method: type[Plain], expected: str, run: Run, tmp_path: Path
) -> None:
    try:
        message = failing(tmp_path, run, method())
    finally:
        torch.set_grad_enabled(True)
    assert re.search(expected, message), message
    resumes(run)


def test_masking_classes_with_minus_infinity_is_no_breach(run: Run) -> None:
    class Masks(ZeroShot):
        name = "masks"

        def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
            logits = super().classify(images, candidates).clone()
            logits[:, 0] = -float("inf")
            return logits

    assert run(Masks()).status == "complete"
