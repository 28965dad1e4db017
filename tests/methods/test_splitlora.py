"""SplitLoRA: the released rule and layer, and updates that protected directions do not see."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.layers.attention import SplitAttention
from clbench.clip.subspaces.covariance import Covariance, observing
from clbench.methods.splitlora import SplitLoRA, protected_directions, start_within
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task
from tests.golden.golden import read
from tests.golden.subspaces import assert_near, projector


def test_splits_as_released():
    golden = read("splitlora")
    spectra, expected = golden.tensors["rule.spectra"], golden.tensors["rule.minor_dim"]
    found_one = 0
    for task, by_alpha in enumerate(expected):
        for alpha, counts in zip(golden.metadata["hp"]["alphas"], by_alpha, strict=True):
            for spectrum, count in zip(spectra, counts, strict=True):
                protected = protected_directions(spectrum, task + 1, alpha)
                found_one += protected == 1
                assert len(spectrum) - max(protected, 2) == count
    assert 0 < found_one < expected.numel()


def test_reproduces_the_released_layer():
    golden = read("splitlora")
    hp = golden.metadata["hp"]
    method = SplitLoRA(rank=hp["rank"], alpha=hp["alpha"], as_released=True)
    attention = attention_of(golden, hp["heads"], hp["rank"])
    start = {name: layer.base.weight.clone() for name, layer in adapters_of(attention).items()}
    covariance, minor = Covariance(), {}
    for index in range(len(hp["classes"])):
        recorded = golden.below(f"task{index}.")
        for name, layer in adapters_of(attention).items():
            down = kaiming = recorded[f"A_kaiming.{name}"]
            if index:
                noise = recorded[f"R.{name}"]
                down = start_within(minor[name], noise, kaiming.norm().item() / (index + 1))
            assert_near(down, recorded[f"A.{name}"], 1e-5)
            layer.set_factors(down=down, up=torch.zeros_like(layer.up))
        head = train(attention, hp, recorded)
        assert_near(head.weight.detach(), recorded["head.weight"], 1e-5)
        with torch.no_grad():
            assert_near(head(features(attention, recorded["x"][0])), recorded["logits"], 1e-5)
            with observing({attention: covariance}):
                for x in recorded["x"]:
                    attention(x, x, x)
        assert_near(covariance.mean(), recorded["cov.k"], 1e-5)
        found = method.minor(covariance, index + 1)
        for name, layer in adapters_of(attention).items():
            minor[name] = recorded[f"minor.{name}"]
            assert found.shape == minor[name].shape
            assert_near(projector(found.float()), projector(minor[name]), 1e-4)
            assert_near(layer.up.detach(), recorded[f"B.{name}"], 1e-5)
            layer.merge()
            change = layer.base.weight.detach() - start[name]
            assert_near(change, recorded[f"delta_total.{name}"], 1e-5)


def attention_of(golden, heads, rank):
    """The golden file's attention: updates of keys and values, no output projection."""
    weight, bias = golden.tensors["qkv.weight"], golden.tensors["qkv.bias"]
    attention = SplitAttention(weight.shape[1], heads)
    for name, w, b in zip("qkv", weight.chunk(3), bias.chunk(3), strict=True):
        layer = getattr(attention, f"{name}_proj")
        layer.load_state_dict({"weight": w, "bias": b})
    attention.out_proj = nn.Identity()
    attention.requires_grad_(False)
    for name in ("k_proj", "v_proj"):
        layer = LowRankLinear(getattr(attention, name), rank, 1.0, trained=("up",))
        setattr(attention, name, layer)
    return attention


def adapters_of(attention):
    return {"k": attention.k_proj, "v": attention.v_proj}


def features(attention, x):
    return (x + attention(x, x, x)[0]).mean(dim=1)


def train(attention, hp, recorded):
    weight, bias = recorded["head0.weight"], recorded["head0.bias"]
    head = nn.Linear(weight.shape[1], len(weight))
    head.load_state_dict({"weight": weight, "bias": bias})
    updates = [layer.up for layer in adapters_of(attention).values()]
    groups = [{"params": updates, "lr": hp["lr"]}, {"params": head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=hp["lr_head"], weight_decay=hp["wd"])
    batches = list(zip(recorded["x"], recorded["labels"], strict=True)) * hp["epochs"]
    for (x, labels), expected in zip(batches, recorded["losses"], strict=True):
        optimizer.zero_grad()
        logits = head(features(attention, x)) / hp["temperature"]
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        assert_near(loss.detach(), expected, 1e-5)
    return head


def learned_once(clip, tiny_task_data, **params):
    method = SplitLoRA(**params)
    method.prepare(clip)
    run_task(method, *tiny_task_data(0), steps=3)
    return method


def test_protected_directions_see_no_update(tiny_clip, tiny_task_data):
    """The claim, which holds whatever the optimizer does."""
    method = learned_once(tiny_clip, tiny_task_data, rank=4, alpha=0.5)
    minor = [method.minor(covariance, 1).float() for _, covariance in method._blocks()]
    task, data = tiny_task_data(1)
    run_steps(method, data, begin(method, replace(task, index=1, count=2), data), range(5))
    moved = 0.0
    for (attention, _), changing in zip(method._blocks(), minor, strict=True):
        assert 0 < changing.shape[1] < len(changing)
        for layer in (attention.k_proj, attention.v_proj):
            update = layer.delta().float()
            moved += update.norm().item()
            outside = update - update @ projector(changing)
            assert outside.norm() < 1e-5 * max(update.norm().item(), 1e-3)
    assert moved > 1e-2


def test_later_tasks_start_shorter(tiny_clip, tiny_task_data):
    method = SplitLoRA(rank=4)
    method.prepare(tiny_clip)
    lengths = []
    for index in range(3):
        task, data = tiny_task_data(index % 2)
        begin(method, replace(task, index=index, count=3), data)
        norms = [adapter.down.norm().item() for adapter in method.adapters.values()]
        lengths.append(sum(norms) / len(norms))
        method.end_task(task, data)
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.05)
    assert lengths[0] / lengths[2] == pytest.approx(3, rel=0.05)


def test_covariance_is_of_all_tasks(tiny_clip, tiny_task_data):
    method = learned_once(tiny_clip, tiny_task_data, rank=2)
    first = [int(covariance.count) for _, covariance in method._blocks()]
    before = [covariance.total.clone() for _, covariance in method._blocks()]
    task, data = tiny_task_data(1)
    run_task(method, replace(task, index=1, count=2), data, steps=1)
    for (_, covariance), count, total in zip(method._blocks(), first, before, strict=True):
        assert covariance.count > count
        assert (covariance.total - total).trace() > 0


def test_more_is_protected_the_more_was_learned():
    spectrum = torch.logspace(0, -4, 40)
    counts = [protected_directions(spectrum, learned, 2.0) for learned in (1, 2, 5, 20)]
    assert counts == sorted(set(counts))
    assert protected_directions(spectrum, 5, 0.0) == len(spectrum)


def test_two_directions_at_least_as_released(tiny_clip, tiny_task_data):
    ranks = {}
    for as_released in (False, True):
        method = learned_once(
            copy.deepcopy(tiny_clip), tiny_task_data, rank=2, alpha=1e3, as_released=as_released
        )
        covariance = method.covariances[-1]
        ranks[as_released] = len(covariance.total) - method.minor(covariance, 1).shape[1]
    assert ranks == {False: 1, True: 2}


def test_without_directions_to_learn_with_nothing_changes():
    rows = start_within(torch.zeros(6, 0), torch.zeros(0, 3), 1.0)
    assert_near(rows, torch.zeros(3, 6), 0)


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(SplitLoRA, {"rank": 3, "as_released": True})
