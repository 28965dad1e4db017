"""Attributes that a resumed run would lose are found before anything is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declare
from clbench.clip.losses import classification
from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.task import Task
from clbench.engine.training.attributes import Attributes, drop_transient
from clbench.testing import check_method
from clbench.testing.toys import make_clip
from tests.small_runs import run_small, write_tasks


@declare(pure=True, ignored=("cache",))
class Part(nn.Module):
    """A module of the method's own, with a cache that has no influence on results."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = 0
        self.cache: dict[str, Tensor] = {}


@dataclass
class Statistics:
    """What some methods collect."""

    mean: Tensor
    count: int = 0


class Keeper(Method):
    """Has one of everything that a method can keep."""

    name = "keeper"
    paper = "https://example.org"
    transient: ClassVar[frozenset[str]] = frozenset({"start"})

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)
        self.register_buffer("mean", torch.zeros(2))
        self.part = Part()
        self.learned = 0  # in the extra state
        self.n_tasks = 0
        self.names: list[str] = []
        self.features: list[Tensor] = []
        self.by_class: dict[int, Tensor] = {}
        self.statistics = Statistics(torch.zeros(2))
        self.table = np.zeros(3)
        self.trained = [model.network.visual.proj]

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"classification": classification(self.model, batch)}

    def get_extra_state(self) -> dict[str, int]:
        return {"learned": self.learned}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.learned = state["learned"]


def count(method: Any) -> None:
    method.n_tasks += 1


def collect(method: Any) -> None:
    method.features.append(torch.ones(2))


def collect_by_class(method: Any) -> None:
    method.by_class[3] = torch.ones(2)


def overwrite(method: Any) -> None:
    method.statistics.mean.add_(1)


def overwrite_unseen(method: Any) -> None:
    method.table.data[1] = 1


def switch(method: Any) -> None:
    method.part.switch = 1


def forget(method: Any) -> None:
    del method.names


def invent(method: Any) -> None:
    method.late = {"a": [torch.zeros(1)]}


def point_elsewhere(method: Any) -> None:
    method.trained = [method.model.logit_scale]


def start(method: Any) -> None:
    method.start = [torch.rand(2)]


def update_buffer(method: Any) -> None:
    method.mean += 1
    method.mean = method.mean.clone()


def update_extra_state(method: Any) -> None:
    method.learned += 1


def train(method: Any) -> None:
    with torch.no_grad():
        method.trained[0].add_(1)


def fill_cache(method: Any) -> None:
    method.part.cache["a"] = torch.ones(1)


def change_nothing(method: Any) -> None:
    method.features = []
    method.names.append("a")
    method.names.pop()


def prepared() -> Keeper:
    method = Keeper()
    method.prepare(make_clip())
    return method


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (count, "self.n_tasks"),
        (collect, "self.features"),
        (collect_by_class, "self.by_class"),
        (overwrite, "self.statistics"),
        (overwrite_unseen, "self.table"),
        (switch, "self.part.switch"),
        (forget, "self.names"),
        (invent, "self.late"),
        (point_elsewhere, "self.trained"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_the_state_dict_does_not_bring_back_is_refused(
    change: Callable[[Any], None], shown: str
) -> None:
    method = prepared()
    watched = Attributes(method)
    change(method)
    before = dict(vars(method))
    with pytest.raises(ClbenchError) as caught:
        watched.require_kept("while learning birds")
    assert str(caught.value) == (
        f"method 'keeper' changed {shown} while learning birds, which its state dict does not "
        "bring back, so a resumed run would lose it: make it a buffer, return it from "
        "get_extra_state, or list it in `transient` if begin_task sets it anew"
    )
    assert all(vars(method)[name] is value for name, value in before.items()), "all is put back"


@pytest.mark.parametrize(
    "change",
    [start, update_buffer, update_extra_state, train, fill_cache, change_nothing],
    ids=lambda change: change.__name__,
)
def test_what_comes_back_or_is_not_needed_is_accepted(change: Callable[[Any], None]) -> None:
    method = prepared()
    watched = Attributes(method)
    change(method)
    state = {name: value for name, value in vars(method).items() if name != "start"}
    drop_transient(method)
    watched.require_kept("while learning birds")
    assert not hasattr(method, "start"), "nobody can rely on what is set anew for every task"
    assert {name: value for name, value in vars(method).items() if name in state} == state


def test_what_holds_itself_cannot_be_compared_and_is_not_watched() -> None:
    method: Any = prepared()
    watched = Attributes(method)
    method.ring = [method.by_class]
    method.ring.append({"ring": method.ring})
    watched.require_kept("while learning birds")
    method.names.append("a")
    with pytest.raises(ClbenchError, match=r"changed self\.names while"):
        watched.require_kept("while learning birds")


def test_several_are_counted() -> None:
    method = prepared()
    watched = Attributes(method)
    count(method)
    switch(method)
    collect(method)
    with pytest.raises(ClbenchError, match=r"changed self\.features and 2 more while"):
        watched.require_kept("while learning birds")


def test_changes_count_from_the_last_mark() -> None:
    method = prepared()
    watched = Attributes(method)
    count(method)
    watched.mark()
    watched.require_kept("while learning birds")
    count(method)
    with pytest.raises(ClbenchError, match=r"self\.n_tasks"):
        watched.require_kept("while learning birds")


def test_a_state_that_a_fresh_process_cannot_load_is_no_excuse() -> None:
    method = prepared()
    watched = Attributes(method)
    method.n_tasks += 1
    method.set_extra_state = lambda state: state["missing"]
    with pytest.raises(ClbenchError, match=r"self\.n_tasks"):
        watched.require_kept("while learning birds")


def test_parts_may_be_replaced() -> None:
    method = prepared()
    watched = Attributes(method)
    method.part = nn.Linear(2, 2)
    watched.require_kept("while learning birds")
    method.n_tasks += 1
    with pytest.raises(ClbenchError, match=r"self\.n_tasks"):
        watched.require_kept("while learning birds")


class Counting(Method):
    """Weighs the loss by the number of tasks learned, which it keeps in an attribute."""

    name = "counting"
    paper = "https://example.org"

    def __init__(self) -> None:
        super().__init__()
        self.n_tasks = 0

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"classification": classification(self.model, batch) / (1 + self.n_tasks)}

    def end_task(self, task: Task, data: TaskData) -> None:
        self.n_tasks += 1


class Averaging(Counting):
    """Smooths the loss over the steps of a task."""

    name = "averaging"

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        terms = super().loss(batch)
        self.smoothed = 0.9 * getattr(self, "smoothed", 0.0) + terms["classification"].item()
        return {name: term * self.smoothed for name, term in terms.items()}

    def end_task(self, task: Task, data: TaskData) -> None:
        del self.smoothed


class Remembering(Counting):
    """The cure: the number is part of the state."""

    name = "remembering"

    def get_extra_state(self) -> int:
        return self.n_tasks

    def set_extra_state(self, state: int) -> None:
        self.n_tasks = state


def test_a_run_stops_before_the_result_of_the_task_is_written(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    with pytest.raises(ClbenchError, match=r"changed self\.n_tasks while learning task0, which"):
        run_small(Counting, tasks, tmp_path / "runs")
    assert not [*(tmp_path / "runs").rglob("task-001.json")]
    every = {"checkpoint_every__steps": 2}
    with pytest.raises(ClbenchError, match=r"changed self\.smoothed while training on task0,"):
        run_small(Averaging, tasks, tmp_path / "runs", **every)
    assert run_small(Remembering, tasks, tmp_path / "runs").status == "complete"


@pytest.mark.parametrize("cls", [Counting, Averaging])
def test_the_contract_sees_it_too(cls: type[Method]) -> None:
    with pytest.raises(AssertionError) as caught:
        check_method(cls)
    lines = str(caught.value).splitlines()
    (line,) = [line for line in lines if line.startswith("keeps_its_state_in_its_state_dict: ")]
    assert ("self.n_tasks" if cls is Counting else "self.smoothed") in line
