"""InfLoRA: the released runs and memories, and outputs that stay on earlier tasks' inputs."""

import copy
from dataclasses import replace

import pytest
import torch

from clbench.clip.subspaces.directions import complement
from clbench.clip.subspaces.dual_basis import DualBasis
from clbench.core.task import ClassTexts, Task
from clbench.core.training import rate_factor
from clbench.methods.inflora import InfLoRA
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task
from tests.golden.golden import build_clip, merged_weight, read
from tests.golden.subspaces import GoldenData, assert_near, projector


def test_reproduces_the_runs_of_nusa_cls_release():
    golden = read("inflora_clip")
    hp = golden.metadata["hp"]
    model = build_clip(
        golden.metadata["cfg"], {k: v.float() for k, v in golden.below("base.").items()}
    )
    method = InfLoRA(
        rank=hp["r"],
        alpha=hp["alpha"],
        dropout=0.0,
        projections="qkvo",
        threshold=hp["gpm_threshold"],
        last_threshold=hp["gpm_threshold"],
        memory="used",
        as_released=True,
        label_smoothing=hp["label_smoothing"],
    )
    method.prepare(model)
    for index in range(len(hp["classes"])):
        recorded = golden.below(f"task{index}.")
        data = GoldenData(recorded)
        task = Task(f"golden {index}", ClassTexts(("any",), (("any",),)), index, len(hp["classes"]))
        before = observed(method, data)
        method.train()
        method.begin_task(task, data)
        for block, (_, parts) in enumerate(adapters_of(method)):
            if (covariance := recorded.get(f"cov_before.{block}")) is not None:
                assert_near(before[block], covariance, 1e-5)
            for part, adapter in parts.items():
                expected = recorded[f"A0.{block}.{part}"]
                if part in ("k_proj", "v_proj"):
                    signs = (adapter.down.data * expected).sum(dim=1, keepdim=True).sign()
                    assert_near(adapter.down.data * signs, expected, 1e-4)
                adapter.down.data.copy_(expected)
        train(method, hp, recorded, data)
        method.end_task(task, data)
        for block, memory in enumerate(method.memories):
            assert memory.basis.shape[1] == recorded["ranks"][block]
            assert_near(projector(memory.basis), projector(recorded[f"basis.{block}"]), 1e-4)
        method.eval()
        first = data.batch_list[0]
        logits = model.logits(first.images, model.encode_text(first.prompts))
        assert_near(logits, recorded["logits"], 1e-3)
    weights = {name: merged_weight(model, name).detach() for name in golden.below("task1.after.")}
    assert len(weights) == 4
    for name, expected in golden.below("task1.after.").items():
        assert_near(weights[name], expected, 1e-5)


def adapters_of(method):
    """Per block, text blocks first, its adapters by the names of the golden file."""
    blocks = {}
    for name, adapter in method.adapters.items():
        block, _, part = name.rpartition(".")
        blocks.setdefault(block, {})["proj" if part == "out_proj" else part] = adapter
    return blocks.items()


def observed(method, data):
    """Means of what the method collects over a pass."""
    method._observe(data)
    return [covariance.take() for covariance in method.covariances]


def train(method, hp, recorded, data):
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=hp["wd"])
    for step, expected in enumerate(recorded["losses"]):
        optimizer.param_groups[0]["lr"] = hp["lr"] * rate_factor(step, hp["warmup"], hp["steps"])
        optimizer.zero_grad()
        loss = method.loss(data.batch_list[step % len(data.batch_list)])["classification"]
        loss.backward()
        optimizer.step()
        assert_near(loss.detach(), expected, 1e-4)


def test_reproduces_the_released_memories():
    golden = read("inflora_dualgpm")
    hp = golden.metadata["hp"]
    memories = [DualBasis(dim, at_first_below=True) for dim in hp["dims"]]
    for task in range(hp["tasks"]):
        recorded = golden.below(f"task{task}.")
        threshold = hp["lamb"] + (hp["lame"] - hp["lamb"]) * task / hp["total_sessions"]
        assert threshold == pytest.approx(recorded["threshold"].item())
        for layer, memory in enumerate(memories):
            covariance = recorded[f"cov.{layer}"]
            if task:
                assert_near(memory.outside(covariance), recorded[f"residual.{layer}"], 1e-5)
            memory.extend(covariance, threshold)
            expected = recorded[f"basis.{layer}"]
            assert memory.unused == recorded["retain"][layer]
            assert memory.basis.shape == expected.shape
            assert_near(projector(memory.basis), projector(expected), 1e-5)
    assert {bool(memory.unused) for memory in memories} == {True, False}


def test_outputs_stay_on_directions_that_earlier_tasks_used(tiny_clip, tiny_task_data):
    """The claim: an update cannot be seen by inputs along the memory."""
    method = InfLoRA(rank=4, dropout=0.0, threshold=0.99, last_threshold=0.99)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    task, data = tiny_task_data(1)
    task = replace(task, index=1, count=2)
    run_steps(method, data, begin(method, task, data), range(5))
    moved = 0.0
    for attention, _, memory in method._blocks():
        used = complement(memory.basis) if memory.unused else memory.basis
        assert 0 < used.shape[1] < len(used)
        for layer in (attention.k_proj, attention.v_proj):
            update = layer.delta().float()
            moved += update.norm().item()
            assert (update @ used).norm() < 1e-5 * max(update.norm().item(), 1e-3)
    assert moved > 1e-2


def test_memory_is_exchanged_for_the_smaller_one_and_keeps_its_meaning():
    generator = torch.Generator().manual_seed(0)
    first, second, new = torch.linalg.qr(torch.randn(10, 10, generator=generator))[0].split(
        [6, 2, 2], dim=1
    )
    memory, plain = DualBasis(10), DualBasis(10, dual=False)
    for features in (first, second):
        for basis in (memory, plain):
            basis.extend(features, threshold=1.0)
    assert memory.unused
    assert (memory.basis.shape[1], plain.basis.shape[1]) == (2, 8)
    torch.testing.assert_close(projector(memory.basis), projector(new))
    columns = torch.randn(10, 3, generator=generator)
    torch.testing.assert_close(memory.outside(columns), plain.outside(columns))
    loaded = DualBasis(10)
    loaded.load_state_dict(memory.state_dict())
    torch.testing.assert_close(loaded.outside(columns), memory.outside(columns))


def test_threshold_grows_from_task_to_task(tiny_clip, tiny_task_data):
    used = {}
    for last in (0.5, 1.0):
        method = InfLoRA(rank=2, threshold=0.5, last_threshold=last, memory="used")
        method.prepare(copy.deepcopy(tiny_clip))
        for index in range(2):
            task, data = tiny_task_data(index)
            run_task(method, replace(task, index=index, count=2), data, steps=1)
        used[last] = sum(memory.basis.shape[1] for memory in method.memories)
    assert used[0.5] < used[1.0]


def test_padding_behind_prompts_is_no_input(tiny_clip, tiny_task_data):
    method = InfLoRA(rank=2)
    method.prepare(tiny_clip)
    _, data = tiny_task_data(0)
    tokens = next(data.batches(1)).prompts
    counted = observed_counts(method, data)
    images = sum(len(batch.images) for batch in data.batches(64))
    text, vision = counted[0], counted[-1]
    assert text == int((tokens.argmax(dim=1) + 1).sum())
    assert vision == images * len(tiny_clip.network.visual.positional_embedding)


def observed_counts(method, data):
    method._observe(data)
    return [int(covariance.count) for covariance in method.covariances]


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(InfLoRA, {"projections": "qkvo", "memory": "used", "as_released": True})
