"""VPT-NSP: the released rule, projections and updates, and prompts hidden from earlier tasks."""

import copy

import pytest
import torch
from torch import nn

from clbench.clip.adapters.prompts import Prompts, add_prompts, queries_of, shares_of_prompts
from clbench.core.errors import ClbenchError
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan
from clbench.methods.vpt_nsp import (
    VPTNSP,
    first_null,
    key_moment,
    null_projection,
    second_moment,
)
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_clip, make_tasks
from tests.golden.golden import read
from tests.golden.subspaces import assert_near


def test_finds_the_bend_as_released():
    golden = read("vptnsp")
    rules = {name for name in golden.tensors if name.endswith(".spectra")}
    assert rules
    for name in rules:
        spectra = golden.tensors[name]
        expected = golden.tensors[name.replace("spectra", "first_null")]
        for spectrum, row in zip(spectra, expected.tolist(), strict=True):
            offsets = golden.metadata["rule_offsets"]
            assert [first_null(spectrum, offset) for offset in offsets] == row


def test_moments_projections_and_updates_are_the_released_ones(tiny_clip):
    golden = read("vptnsp")
    hp = golden.metadata["hp"]
    method = VPTNSP(
        prompts=hp["prompts"],
        eta_queries=hp["eta"][0],
        eta_shares=hp["eta"][1],
        offset=hp["offset"][0],
        as_released=True,
    )
    assert hp["offset"][0] == hp["offset"][1]
    method.prepare(tiny_clip)
    size, count, kept = hp["d"], hp["prompts"], hp["tokens"]
    method.added = []
    for block in range(hp["blocks"]):
        added = Prompts(nn.Identity(), count, size)
        added.tokens.data.copy_(golden.tensors[f"prompt0.{block}"][0])
        method.added.append(added)
    moments = torch.zeros(hp["blocks"], size, size)
    shares = torch.zeros(hp["blocks"], count, count)
    method.projections = None
    for task in range(hp["tasks"]):
        recorded = golden.below(f"task{task}.")
        follow_updates(method, recorded, hp)
        if task == hp["tasks"] - 1:
            break
        for block in range(hp["blocks"]):
            weight = golden.tensors[f"key_weight.{block}"]
            for batch in range(hp["batches"]):
                queries, attended = (recorded[f"{x}.{block}.{batch}"] for x in ("q", "attn"))
                moments[block] += key_moment(queries[:, :, :kept], weight)
                shares[block] += second_moment(attended[:, :, :kept, kept:])
            assert_relative(moments[block], recorded[f"M1.{block}"])
            assert_relative(shares[block], recorded[f"M2.{block}"])
        pairs = zip(moments, shares, strict=True)
        method.projections = [(method._onto(m, True), method._onto(s, False)) for m, s in pairs]
        for block, (first, second) in enumerate(method.projections):
            assert_near(first, recorded[f"P1.{block}"], 1e-5)
            assert_near(second, recorded[f"P2.{block}"], 1e-5)


def assert_relative(found, expected):
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def follow_updates(method, recorded, hp):
    """The optimizer's steps of a task, with the recorded gradients."""
    plan = TrainingPlan(
        hp["steps"],
        hp["lr"],
        TrainSettings(optimizer="adam", weight_decay=hp["wd"], schedule="constant", warmup=0),
    )
    optimizer = plan.optimizer([added.tokens for added in method.added])
    for step in range(hp["steps"]):
        for block, added in enumerate(method.added):
            added.tokens.grad = recorded[f"grads.{block}"][step, 0].clone()
        method.after_backward()
        optimizer.step()
        method.after_step()
        for block, added in enumerate(method.added):
            found = added.tokens.detach()
            assert_near(found, recorded[f"prompts.{block}"][step, 0], 1e-5)


@torch.no_grad()
def test_prompts_are_seen_and_gone_behind_the_attention():
    """The same as appending them before the norm and dropping them after the attention."""
    block = make_clip().blocks("vision")[0]
    plain = copy.deepcopy(block.attn)
    attention = add_prompts([block], 3)[0]
    attention.seen.draw(torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    whole = block.ln_1(torch.cat([x, attention.seen.tokens.expand(2, -1, -1)], dim=1))
    expected = plain(whole, whole, whole)[0][:, :5]
    assert (expected - plain(whole[:, :5], whole[:, :5], whole[:, :5])[0]).abs().max() > 1e-3
    assert_near(block.attention(block.ln_1(x)), expected, 1e-6)
    queries, keys = (
        project(whole).unflatten(2, (2, -1)).transpose(1, 2)
        for project in (plain.q_proj, plain.k_proj)
    )
    weights = (queries @ keys.transpose(2, 3) / 32**0.5).softmax(dim=-1)
    assert_near(shares_of_prompts(attention, block.ln_1(x)), weights[:, :, :5, 5:], 1e-6)
    assert_near(queries_of(attention, block.ln_1(x)), queries[:, :, :5], 1e-6)


def test_key_moment_is_the_moment_of_all_heads_rows():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, 5, 3, generator=generator)
    weight = torch.randn(12, 12, generator=generator)
    rows = [queries[:, h] @ weight[3 * h : 3 * h + 3] for h in range(4)]
    assert_near(key_moment(queries, weight), second_moment(torch.stack(rows)), 1e-5)


def test_a_projection_leaves_null_directions_as_they_are():
    """Right by default; divided by its norm it would shrink them."""
    moment = torch.diag(torch.tensor([9.0, 8.0, 7.0, 0.1, 0.05, 0.01]))
    first = first_null(moment.diagonal())
    onto = null_projection(moment, 0.9, 0.0, normalised=False)
    expected = torch.full((6,), 0.1)
    expected[first:] = 1.0
    assert first == 3
    assert_near(onto, torch.diag(expected), 1e-6)
    shrunk = null_projection(moment, 0.9, 0.0, normalised=True)
    assert_near(shrunk[5, 5], torch.tensor(0.9 / 3**0.5 + 0.1), 1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_few_prompts_have_a_null_direction(count):
    assert first_null(torch.ones(count)) == count - 1


def learned(tasks, steps=10, rate=0.05, **options):
    torch.manual_seed(0)
    method = VPTNSP(**{"refine_epochs": 0, **options})
    method.prepare(make_clip())
    for task, data in tasks:
        run_task(method, task, data, steps=steps, rate=rate)
    return method


def test_earlier_tasks_see_less_of_a_projected_update():
    """The claim: prompts move as far, and the first task's features hardly."""
    (first, data), (second, other) = make_tasks(3, 4)
    moved = {}
    for eta in (0.0, 1.0):
        method = learned([(first, data)], eta_queries=eta, eta_shares=eta, statistics=0.0)
        with torch.no_grad():
            before = method.model.encode_image(data.images)
        start = [added.tokens.detach().clone() for added in method.added]
        run_steps(method, other, begin(method, second, other, rate=0.05), range(10))
        with torch.no_grad():
            change = (method.model.encode_image(data.images) - before).norm()
        steps = zip(method.added, start, strict=True)
        length = sum((added.tokens - before).norm() for added, before in steps)
        moved[eta] = (change / length).item()
    assert moved[1.0] < 0.7 * moved[0.0]


def test_updates_lie_in_the_null_spaces():
    (first, data), (second, other) = make_tasks(3, 4)
    method = learned([(first, data)], eta_queries=1.0, eta_shares=1.0)
    start = [added.tokens.detach().clone() for added in method.added]
    run_steps(method, other, begin(method, second, other), range(4))
    parts = zip(method.added, start, method.projections, strict=True)
    for added, before, (p1, p2) in parts:
        update = (added.tokens - before).detach()
        assert update.norm() > 0
        assert_near(p2 @ update @ p1, update, 1e-5)
        assert 0 < torch.linalg.matrix_rank(p1) < len(p1)


def test_refining_tells_all_classes_apart():
    """Generative replay: classes of both tasks, from their distributions alone."""
    tasks = make_tasks(3, 4)
    candidates = tasks[0][0].classes + tasks[1][0].classes
    images = torch.cat([data.images for _, data in tasks])
    labels = torch.cat([tasks[0][1].labels, tasks[1][1].labels + 3])
    accuracy = {}
    for epochs in (0, 60):
        method = learned(tasks, refine_epochs=epochs, refine_lr=0.01, refine_samples=64)
        found = scores(method, images, candidates).argmax(dim=1)
        accuracy[epochs] = (found == labels).float().mean().item()
    assert accuracy[60] > accuracy[0] + 0.4
    assert len(method.gaussians) == len(method.learned) == 7


def test_a_class_without_images_is_no_distribution():
    task, data = make_tasks(3)[0]
    data.images, data.labels = data.images[data.labels != 1], data.labels[data.labels != 1]
    method = learned([(task, data)], refine_epochs=1, refine_samples=4)
    assert len(method.gaussians) == len(method.learned) == 2
    texts = method.model.class_features(task.classes)
    torch.testing.assert_close(method.learned, texts[[0, 2]])


def test_earlier_prompts_hold_the_statistics():
    (first, data), (second, other) = make_tasks(3, 4)
    method = learned([(first, data)])
    driven = begin(method, second, other)
    batch = next(other.batches(8))
    assert method.loss(batch)["statistics"] == 0
    run_steps(method, other, driven, range(3))
    assert method.loss(batch)["statistics"] > 0
    end(method, second, other)
    method = learned([(first, data)], statistics=0.0)
    begin(method, second, other)
    assert set(method.loss(batch)) == {"classification"}


def test_the_published_rate_falls_in_steps():
    method = VPTNSP(stepped=True)
    method.prepare(make_clip())
    optimizer, schedule = method.optimizer(TrainingPlan(10, 1.0, TrainSettings(optimizer="adam")))
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_needs_a_projection():
    clip = make_clip()
    clip.network.visual.proj = None
    with pytest.raises(ClbenchError, match="refines a projection, which tiny lacks"):
        VPTNSP().prepare(clip)


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(VPTNSP, {"refine_epochs": 2, "refine_samples": 8, "as_released": True})
