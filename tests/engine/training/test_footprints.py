"""What a method keeps is measured: what it says about itself can only add to that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clbench.clip.draws import Draws
from clbench.clip.losses import classification
from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.method import Footprint, Method
from clbench.core.task import Task
from clbench.engine.training.footprints import measured, state_bytes
from clbench.methods.lora import LoRA
from clbench.report.tables.frames import METHOD, REFERENCE_LABEL, summary_table
from clbench.testing.driving import begin, end, run_steps, run_task
from clbench.testing.toys import make_clip, make_task
from tests.small_runs import run_small, write_tasks

TASK, DATA = make_task(0)


class Modest(Method):
    """Keeps features of every task, and says nothing about it."""

    name = "modest"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)
        self.register_buffer("features", torch.zeros(10, 4))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"classification": classification(self.model, batch)}

    def end_task(self, task: Task, data: TaskData) -> None:
        self.features += 1


class InExtraState(Modest):
    """Keeps them where no buffer shows them."""

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        del self.features
        self.kept = {"old": [torch.zeros(10, 4)]}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Nothing more."""

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        return self.kept

    def set_extra_state(self, state: dict[str, list[Tensor]]) -> None:
        self.kept = state


class Teaching(Modest):
    """Keeps the initial projection, and counts it with what it keeps elsewhere."""

    def footprint(self) -> Footprint:
        return Footprint(self.trainable_parameters(), 0, 1000, 0)


class Sharing(Modest):
    """Shows the same memory under three names."""

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.again = model.network.visual.proj
        self.register_buffer("same", self.features)
        self.register_buffer("head", self.features[:2])


def kept(method: Method) -> int:
    """Bytes that a method is said to store after a task."""
    clip = make_clip()
    backbone = state_bytes(clip)
    method.prepare(clip)
    run_task(method, TASK, DATA, steps=1)
    return measured(method, backbone).stored


@pytest.mark.parametrize("method", [Modest(), InExtraState()], ids=["buffer", "extra state"])
def test_what_is_in_the_state_dict_counts_though_the_method_is_silent(method: Method) -> None:
    assert kept(method) == 10 * 4 * 4


def test_the_larger_number_counts() -> None:
    assert kept(Teaching()) == 1000


def test_memory_counts_once() -> None:
    assert kept(Sharing()) == 10 * 4 * 4 + 2 * 4 * 4  # a part of it is written by itself


def test_merged_updates_and_generators_do_not_count() -> None:
    clip = make_clip()
    backbone = state_bytes(clip)
    method = LoRA(rank=2)
    method.prepare(clip)
    driven = begin(method, TASK, DATA)
    run_steps(method, DATA, driven, range(2))
    # Two factors of 16 weights of 64 x 64, each of 2 x 64 numbers of four bytes.
    assert measured(method, backbone).stored == 16 * 2 * (2 * 64) * 4
    end(method, TASK, DATA)
    assert measured(method, backbone).stored == 0
    assert Draws().get_extra_state().nbytes > 1000


def test_a_silent_method_is_not_storage_free_in_the_table(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    results = [run_small(cls, tasks, tmp_path / "runs") for cls in (Modest, LoRA)]
    assert [result.footprint.stored for result in results] == [160, 0]
    table = summary_table(results)
    modest, lora = results[0].method.name, "lora"
    assert table["storage_free"].to_dict() == {REFERENCE_LABEL: True, modest: False, lora: True}
    assert table.loc[modest, "kind"] == METHOD
