"""KeepLoRA: the released runs, a start that changes nothing, and directions that stay."""

import copy

import pytest
import torch

from clbench.clip.subspaces.dual_basis import grown_basis
from clbench.core.settings import TrainSettings
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan
from clbench.methods.keeplora import KeepLoRA, PositionAverage
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task
from tests.golden.golden import build_clip, merged_weight, read
from tests.golden.subspaces import GoldenData, assert_near, assert_near_in_norm, projector


def name_of(adapter):
    """The golden file's name of a weight: encoder, projection and block."""
    block = next(part for part in adapter.split(".") if part.isdigit())
    encoder = "vit" if "visual" in adapter else "text"
    projection = "o" if adapter.endswith("out_proj") else adapter.rpartition(".")[2][0]
    return f"{encoder}_{projection}.{block}"


def test_reproduces_the_released_runs():
    golden = read("keeplora")
    hp = golden.metadata["hp"]
    base = {name: weight.float() for name, weight in golden.below("base.").items()}
    model = build_clip(golden.metadata["cfg"], base)
    method = KeepLoRA(
        rank=hp["r"],
        principal_vision=hp["v_thr2"],
        principal_text=hp["t_thr2"],
        threshold=hp["v_thr"],
        features="averaged",
        one_cycle=True,
        as_released=True,
    )
    assert hp["v_thr"] == hp["t_thr"]
    method.prepare(model)
    assert_ranks(method, golden.metadata["order"], golden.tensors["pretrained.ranks"])
    bases = {name_of(name): basis for name, basis in kept_by(method).items()}
    for name, basis in golden.below("pretrained.").items():
        if name != "ranks":
            assert_near(projector(bases[name].basis), projector(basis), 1e-4)
    for index in range(len(hp["classes"])):
        recorded = golden.below(f"task{index}.")
        data = GoldenData(recorded)
        task = Task(f"golden {index}", ClassTexts(("any",), (("any",),)), index, len(hp["classes"]))
        method.train()
        method.begin_task(task, data)
        for name, adapter in method.adapters.items():
            a, b = (recorded[f"{part}.{name_of(name)}"] for part in ("A0", "B0"))
            found = adapter.delta().float() / adapter.scale
            assert_near_in_norm(found, (a @ b).T, 1e-4)
            adapter.merge()
            adapter.set_factors(down=a.T, up=b.T)
            adapter.subtract()
        train(method, hp, recorded, data)
        method.eval()
        method.end_task(task, data)
        assert_ranks(method, golden.metadata["order"], recorded["ranks"])
        for name, basis in recorded.items():
            if name.startswith("basis."):
                found = bases[name.removeprefix("basis.")].basis
                assert_near(projector(found), projector(basis), 1e-4)
        first = data.batch_list[0]
        logits = model.logits(first.images, model.encode_text(first.prompts))
        assert_near(logits, recorded["logits"], 1e-3)
    expected = golden.below("task1.after.")
    assert len(expected) == 4
    for name, weight in expected.items():
        assert_near(merged_weight(model, name).detach(), weight, 1e-5)


def kept_by(method):
    """What stays of each weight, by the adapter's name."""
    return dict(zip(method.adapters, method.kept, strict=True))


def assert_ranks(method, order, ranks):
    """Columns of every basis, rows by encoder and projection, columns by block."""
    for name, kept in kept_by(method).items():
        projection, block = name_of(name).split(".")
        expected = ranks[order.index(projection), int(block)]
        assert kept.basis.shape[1] == expected, name


def train(method, hp, recorded, data):
    settings = TrainSettings(weight_decay=hp["wd"])
    plan = TrainingPlan(len(recorded["losses"]), hp["lr"], settings)
    optimizer, schedule = method.optimizer(plan)
    for step, expected in enumerate(recorded["losses"]):
        group = optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(recorded["lr"][step].item(), rel=1e-5)
        assert group["betas"][0] == pytest.approx(recorded["beta1"][step].item(), rel=1e-5)
        optimizer.zero_grad()
        loss = method.loss(data.batch_list[step % len(data.batch_list)])["classification"]
        loss.backward()
        optimizer.step()
        schedule.step()
        assert_near(loss.detach(), expected, 1e-4)


def test_averages_positions_of_images_as_released():
    golden = read("keeplora")
    recorded, average = golden.tensors["task0.features.vit_q.1"], PositionAverage()
    batches, size = golden.metadata["hp"]["batches"], golden.metadata["hp"]["batch"]
    features = torch.randn(batches, size, recorded.shape[1] // size, recorded.shape[0])
    for batch in features:
        average.add(batch)
    average.add(features[0, :-1])  # a smaller last batch
    found = average.take()
    assert found.shape == recorded.shape
    tokens = features.shape[0] * features.shape[1] * features.shape[2]
    assert_near(found[:, size + 2], features[:, 2, 1].sum(dim=0) / tokens, 1e-6)


def test_starts_as_the_model_it_was(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    images = next(data.batches(8)).images
    method = KeepLoRA(rank=3)
    method.prepare(tiny_clip)
    with torch.no_grad():
        before = method.classify(images, task.classes)
    begin(method, task, data)
    method.eval()
    with torch.no_grad():
        assert_near(method.classify(images, task.classes), before, 1e-4)
    assert all(adapter.delta().norm() > 0 for adapter in method.adapters.values())


def test_what_stays_cannot_be_changed(tiny_clip, tiny_task_data):
    """The claim: neither principal directions nor those of earlier tasks see an update."""
    method = KeepLoRA(rank=3, threshold=0.9)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    start = copy.deepcopy({n: a.base.weight.detach() for n, a in method.adapters.items()})
    task, data = tiny_task_data(1)
    run_steps(method, data, begin(method, task, data), range(5))
    moved = 0.0
    for name, adapter in method.adapters.items():
        change = adapter.base.weight.detach() + adapter.delta().float() - start[name]
        kept = kept_by(method)[name].basis
        assert 0 < kept.shape[1] < len(kept)
        moved += change.norm().item()
        assert (change @ kept).norm() < 1e-5
    assert moved > 1e-2


def test_principal_directions_are_those_of_the_input(tiny_clip):
    method = KeepLoRA(rank=2, principal_vision=0.5)
    method.prepare(tiny_clip)
    name, adapter = next((n, a) for n, a in method.adapters.items() if "visual" in n)
    weight = adapter.base.weight.detach()
    basis = kept_by(method)[name].basis
    share = (weight @ basis).square().sum() / weight.square().sum()
    assert 0.5 <= share < 0.6
    expected = grown_basis(weight.new_zeros(weight.shape[1], 0), weight.T, 0.5)
    assert_near(projector(basis), projector(expected), 1e-5)


def test_a_gradient_of_few_directions_starts_no_others(tiny_clip, tiny_task_data):
    """Directions of rounding would be trained by Adam like all others."""
    method = KeepLoRA(rank=12, principal_vision=0.97, principal_text=0.97)
    method.prepare(tiny_clip)
    begin(method, *tiny_task_data(0))
    used = [int((a.down.norm(dim=1) > 0).sum()) for a in method.adapters.values()]
    for adapter in method.adapters.values():
        empty = adapter.down.norm(dim=1) == 0
        assert (adapter.up[:, empty] == 0).all()
    assert min(used) < 12


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(KeepLoRA, {"rank": 3, "features": "averaged", "as_released": True})
