"""State that grows comes back in the size it had."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from clbench.clip.growing import GrowingList, let_grow
from clbench.clip.model import CLIP
from clbench.clip.shortcuts.constancy import fingerprint
from clbench.core.data import Batch, TaskData
from clbench.core.errors import Stopped
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task
from tests.engine.rundir.test_resuming import Kill, Killed, Signal, outcome
from tests.small_runs import run_small, write_tasks


class Head(nn.Module):
    """Classes with prototypes, and parameters of another size than they started with."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, 4))
        self.fixed = nn.Parameter(torch.ones(2))
        self.register_buffer("prototypes", torch.zeros(classes, 4, dtype=torch.float64))
        self.register_buffer("centre", None if not classes else torch.ones(4))
        let_grow(self, "weight", "prototypes", "centre")


def grown() -> Head:
    head = Head(3)
    with torch.no_grad():
        for tensor in (*head.parameters(), *head.buffers()):
            tensor.copy_(torch.rand(tensor.shape))
    return head


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside another module"])
def test_parameters_and_buffers_take_the_shape_of_what_is_loaded(inside: bool) -> None:
    saved: nn.Module = grown()
    fresh: nn.Module = Head()
    if inside:
        saved, fresh = (nn.ModuleDict({"head": module}) for module in (saved, fresh))
    fresh.load_state_dict(saved.state_dict())
    found, expected = fresh.state_dict(), saved.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_types_and_what_trains_stay() -> None:
    fresh = Head()
    fresh.weight.requires_grad_(False)
    state = {name: value.half() for name, value in grown().state_dict().items()}
    fresh.load_state_dict(state)
    assert (fresh.weight.dtype, fresh.prototypes.dtype) == (torch.float32, torch.float64)
    assert not fresh.weight.requires_grad
    assert isinstance(fresh.weight, nn.Parameter)


def test_a_buffer_that_the_state_lacks_becomes_none_again() -> None:
    head = grown()
    head.load_state_dict(Head().state_dict())
    assert head.centre is None
    assert head.weight.shape == head.prototypes.shape == (0, 4)


def test_what_is_not_named_must_fit() -> None:
    fresh, state = Head(), grown().state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for fixed"):
        fresh.load_state_dict({**state, "fixed": torch.ones(3)})


def test_what_keeps_its_size_keeps_its_memory() -> None:
    """An optimizer, or a tensor shared with another module, still means the same parameter."""
    head = grown()
    weight, address = head.weight, head.prototypes.data_ptr()
    head.load_state_dict(grown().state_dict())
    assert head.weight is weight
    assert head.prototypes.data_ptr() == address


def test_a_copy_grows_by_itself() -> None:
    original = Head()
    copied = copy.deepcopy(original)
    copied.load_state_dict(grown().state_dict())
    assert len(copied.weight) == 3
    assert len(original.weight) == 0


def experts() -> GrowingList:
    return GrowingList(lambda: nn.Linear(2, 3))


@pytest.mark.parametrize(("before", "saved"), [(0, 3), (1, 3), (3, 1), (2, 0)])
def test_a_list_has_as_many_modules_as_were_saved(before: int, saved: int) -> None:
    source, target = experts(), experts()
    for _ in range(saved):
        source.grow()
    for _ in range(before):
        target.grow()
    holder = nn.ModuleDict({"experts": target, "other": nn.Linear(1, 1)})
    state = {f"experts.{name}": value for name, value in source.state_dict().items()}
    holder.load_state_dict(state | nn.Linear(1, 1).state_dict(prefix="other."))
    assert len(target) == saved
    assert all(torch.equal(target.state_dict()[k], v) for k, v in source.state_dict().items())


def test_lists_may_stand_in_lists() -> None:
    def nested() -> GrowingList:
        return GrowingList(experts)

    source = nested()
    for size in (1, 12):
        inner = source.grow()
        for _ in range(size):
            inner.grow()
    target = nested()
    target.load_state_dict(source.state_dict())
    assert [len(inner) for inner in target] == [1, 12]


@pytest.mark.parametrize("training", [True, False])
def test_a_new_module_is_in_the_mode_of_its_list(training: bool) -> None:
    grown = experts().train(training).grow()
    assert grown.training is training


def test_a_list_does_not_hide_what_changes_from_the_memory_of_text_features() -> None:
    layers = experts()
    states = {fingerprint(layers)}
    for _ in range(2):
        layers.grow()
        states.add(fingerprint(layers))
    with torch.no_grad():
        layers[0].weight[0, 0] += 1
    states.add(fingerprint(layers))
    assert None not in states
    assert len(states) == 4


class Prototypes(Method):
    """Grows in every way: a buffer, a parameter that trains, and modules."""

    name = "prototypes"
    paper = "https://example.org"
    traits: ClassVar[frozenset[str]] = frozenset(
        {"answers-change-at-end", "resumes-through-begin-task"}
    )

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        width = model.network.visual.output_dim
        self.offsets = nn.Parameter(torch.zeros(0, width))
        self.register_buffer("means", None)
        self.scales = GrowingList(lambda: nn.Linear(width, 1))
        let_grow(self, "offsets", "means")

    def begin_task(self, task: Task, data: TaskData) -> None:
        new = torch.zeros(len(task.classes), self.offsets.shape[1])
        self.offsets = nn.Parameter(torch.cat([self.offsets.detach(), new]))
        self.scales.requires_grad_(False)
        nn.init.constant_(self.scales.grow().weight, 0.01)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        own = self.offsets[-len(batch.prompts) :]
        texts = self.model.text_features(batch.prompts) + own
        factor = 1 + self.scales[-1](texts).T
        logits = self.model.logits(batch.images, texts) * factor
        return {"classification": nn.functional.cross_entropy(logits, batch.labels)}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        features = [self.model.encode_image(batch.images) for batch in data.batches(4)]
        mean = torch.cat(features).mean(dim=0, keepdim=True)
        self.means = mean if self.means is None else torch.cat([self.means, mean])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        texts = self.model.class_features(candidates)
        if self.means is not None:
            texts = texts + self.means.mean(dim=0) + self.offsets.mean(dim=0)
        return self.model.logits(images, texts)


def test_a_run_that_has_grown_goes_on_bit_for_bit(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=3)
    run_small(Prototypes, tasks, tmp_path / "whole")
    cut = {"checkpoint_every__steps": 1}
    for reporter in (Kill(task=0, step=2), Signal(task=1, step=2), Kill(task=2, step=3)):
        with pytest.raises((Stopped, Killed)):
            run_small(Prototypes, tasks, tmp_path / "cut", reporter=reporter, **cut)
    run_small(Prototypes, tasks, tmp_path / "cut", **cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
