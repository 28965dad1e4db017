"""CoDyRA: the released runs, gates that close, and a merge that changes nothing."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.losses import classification
from clbench.core.data import Batch
from clbench.core.settings import TrainSettings
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan
from clbench.engine.training.footprints import measured, state_bytes
from clbench.engine.training.modules import planned
from clbench.methods.codyra import CoDyRA, thresholds
from clbench.testing.checks import check_method
from clbench.testing.driving import first_batch, run_task
from clbench.testing.toys import make_clip
from tests.golden.distilling import chosen, numbered_task, opened
from tests.golden.subspaces import assert_near

PARTS = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "o": "attn.out_proj"}


def weight_of(name):
    """The adapter of a layer that the golden file names by its encoder, block and projection."""
    block, _, part = name.rpartition(".")
    return f"network.{block}.{PARTS.get(part, f'mlp.{part}')}"


def test_reproduces_the_released_runs():
    golden, model = opened("codyra")
    hp = golden.metadata["hp"]
    method = CoDyRA(
        rank=hp["rank"],
        max_threshold=hp["max_kappa"],
        levels=hp["lambda_num"],
        dense=hp["dense_iters"],
        label_smoothing=hp["label_smoothing"],
        as_released=True,
    )
    method.prepare(model)
    layers = [weight_of(name) for name in hp["order"]]
    assert list(method.adapters) == layers
    for index in range(len(hp["classes"])):
        own = golden.below(f"task{index}.")
        task = numbered_task(golden, index)
        method.train()
        method.begin_task(task, None)
        for name in hp["order"]:
            adapter = method.adapters[weight_of(name)]
            up, gates = torch.zeros_like(adapter.up), own[f"init.{name}.g"]
            adapter.set_factors(down=own[f"init.{name}.A"], up=up, core=gates)
        train(method, hp, own)
        method.eval()
        for name in hp["order"]:
            adapter = method.adapters[weight_of(name)]
            for factor, part, atol in ((adapter.down, "A", 1e-4), (adapter.up, "B", 2e-5)):
                if (expected := own.get(f"trained.{name}.{part}")) is not None:
                    assert_near(factor.detach(), expected, atol)
        assert_probed(model, golden, index)
        method.end_task(task, None)
        found = [ranks[index] for ranks in method.surviving_ranks().values()]
        assert found == own["ranks"].tolist()
        assert 0 < sum(found) < hp["rank"] * len(found)
        assert_probed(model, golden, index)
        for name, expected in own.items():
            if name.startswith("merged."):
                layer = method.adapters[weight_of(name.removeprefix("merged."))]
                assert_near(layer.base.weight.detach(), expected, 5e-6)


def train(method, hp, own):
    """Take the recorded steps on the recipe's schedule."""
    settings = TrainSettings(
        weight_decay=hp["wd"], betas=tuple(hp["betas"]), warmup=int(hp["warmup"])
    )
    optimizer, schedule = planned(method, TrainingPlan(hp["iterations"], hp["lr"], settings))
    assert method.thresholds == pytest.approx(own["thresholds"].tolist())
    for step, rows in enumerate(own["batches"]):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(own["lr"][step].item())
        labels = own["pool_labels"][rows[rows >= 0]].long()
        terms = method.loss(Batch(chosen(own["pool"], rows), labels, own["tokens"].long()))
        for name, term in terms.items():
            assert_near(term.detach(), own[f"loss_{name}"][step], 5e-5)
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
        method.after_step()
        schedule.step()
        gates = torch.stack([adapter.core.detach() for adapter in method.adapters.values()])
        assert_near(gates, own["gates"][step], 1e-5)
        assert torch.equal(gates == 0, own["gates"][step] == 0)


@torch.no_grad()
def assert_probed(model, golden, index):
    """Check the answers among the classes of all tasks."""
    count = len(golden.metadata["hp"]["classes"])
    tokens = torch.cat([golden.tensors[f"task{t}.tokens"] for t in range(count)]).long()
    logits = model.logits(golden.tensors["probe_images"].float(), model.encode_text(tokens))
    assert_near(logits, golden.tensors[f"task{index}.probe_logits"], 5e-4)


def test_each_text_finds_its_images_whatever_was_learned_before(tiny_task_data):
    """With as_released, classes of earlier tasks dilute the term."""
    task, data = tiny_task_data(0)
    classes = ClassTexts(task.classes.names, task.classes.prompts, (6, 7, 8))
    batch = first_batch(data)
    for released, rows in ((False, 3), (True, 9)):
        method = CoDyRA(rank=2, as_released=released)
        method.prepare(make_clip())
        method.begin_task(Task(task.name, classes, 2), data)
        model = method.model
        logits = model.logits(batch.images, model.encode_text(batch.prompts))
        targets = F.one_hot(batch.labels, 3).T.float()
        found = -(targets * logits.T.log_softmax(dim=1)).sum() / rows
        terms = method.loss(batch)
        assert_near(terms["text_to_image"], found, 1e-4)
        assert_near(terms["image_to_text"], classification(model, batch, 0.0), 1e-4)


def test_thresholds_climb_to_the_last_level_however_few_the_steps(tiny_clip):
    method = CoDyRA(max_threshold=0.02, levels=50)
    method.prepare(tiny_clip)
    for steps in (500, 100, 7):
        method.optimizer(TrainingPlan(steps, 1e-3, TrainSettings()))
        found = method.thresholds
        assert len(found) == steps
        assert found == sorted(found)
        assert found[-1] == pytest.approx(0.02)
        assert max(found[: steps // 2]) == 0
    assert set(thresholds(50, 0.5, 50, 0.02)) == {0.0}  # as released


def test_gates_shrink_and_close(tiny_clip, tiny_task_data):
    start = torch.tensor([0.05, -0.05, 0.15, -0.15, 0.35])
    for released, shrunk in ((False, [0, 0, 0.05, -0.05, 0.25]), (True, [0, 0, 0, 0, 0.25])):
        method = CoDyRA(rank=5, as_released=released)
        method.prepare(make_clip())
        method.begin_task(*tiny_task_data(0))
        method.thresholds = [0.0, 0.1]
        for expected in (start, torch.tensor(shrunk)):
            for adapter in method.adapters.values():
                adapter.core.data.copy_(start)
            method.after_step()
            for adapter in method.adapters.values():
                assert_near(adapter.core.detach(), expected, 1e-6)


def test_stronger_thresholds_leave_fewer_ranks_and_smaller_updates(tiny_task_data):
    """The claim: selection limits what a task changes."""
    ranks, moved = [], []
    for largest in (0.0, 0.05, 0.2):
        method = CoDyRA(rank=4, max_threshold=largest, levels=5)
        method.prepare(make_clip())
        before = [a.base.weight.detach().clone() for a in method.adapters.values()]
        run_task(method, *tiny_task_data(0), steps=20)
        after = [a.base.weight.detach() for a in method.adapters.values()]
        moved.append(sum((b - a).norm().item() for a, b in zip(before, after, strict=True)))
        ranks.append(sum(counts[0] for counts in method.surviving_ranks().values()))
    assert ranks[0] == 4 * len(method.adapters)
    assert ranks[0] > ranks[1] > ranks[2]
    assert moved[0] > moved[1] > moved[2]


def test_ranks_of_all_tasks_are_told_and_nothing_else_is_kept(tiny_clip, tiny_task_data):
    method = CoDyRA(rank=4, max_threshold=0.2)
    method.prepare(tiny_clip)
    size = state_bytes(make_clip())
    for index in range(2):
        run_task(method, *tiny_task_data(index), steps=4)
    told = method.surviving_ranks()
    assert told.keys() == method.adapters.keys()
    assert {len(counts) for counts in told.values()} == {2}
    assert measured(method, size).stored == 0
    other = CoDyRA(rank=4)
    other.prepare(make_clip())
    other.load_state_dict(method.state_dict())
    assert other.surviving_ranks() == told


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(CoDyRA, {"rank": 3, "levels": 4, "max_threshold": 0.05, "as_released": True})
