"""MiLoRA: the minor components move into the factors, and the model stays what it was."""

import copy

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.methods.milora import MiLoRA
from clbench.testing.driving import run_task

RANK = 8


def tail(weight):
    """The part of a weight with the smallest singular values."""
    u, s, vh = torch.linalg.svd(weight.detach().double())
    return (u[:, -RANK:] * s[-RANK:]) @ vh[-RANK:]


def begun(model, task, data, **options):
    method = MiLoRA(rank=RANK, dropout=0.0, **options)
    method.prepare(model)
    method.begin_task(task, data)
    return method


def test_a_task_starts_from_the_unchanged_model(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    expected = tiny_clip.encode_image(data.images)
    before = {name: layer.weight.clone() for name, layer in tiny_clip.attention_linears()}
    method = begun(tiny_clip, task, data)

    torch.testing.assert_close(tiny_clip.encode_image(data.images), expected, atol=1e-5, rtol=0)
    for name, adapter in method.adapters.items():
        minor = tail(before[name])
        torch.testing.assert_close(adapter.delta(), minor, atol=1e-6, rtol=0)
        frozen = adapter.base.weight.double()
        torch.testing.assert_close(frozen, before[name].double() - minor, atol=1e-6, rtol=0)


def test_as_released_starts_with_the_scaled_tail_on_top(tiny_clip, tiny_task_data):
    before = {name: layer.weight.clone() for name, layer in tiny_clip.attention_linears()}
    method = begun(tiny_clip, *tiny_task_data(0), as_released=True)

    for name, adapter in method.adapters.items():
        assert torch.equal(adapter.base.weight, before[name])
        expected = 2.0 / RANK**0.5 * tail(before[name])
        torch.testing.assert_close(adapter.delta(), expected, atol=1e-6, rtol=0)


def test_the_next_task_decomposes_the_merged_weight(tiny_clip, tiny_task_data):
    method = MiLoRA(rank=RANK, dropout=0.0)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    merged = {name: a.base.weight.clone() for name, a in method.adapters.items()}
    method.begin_task(*tiny_task_data(1))
    for name, adapter in method.adapters.items():
        torch.testing.assert_close(adapter.delta(), tail(merged[name]), atol=1e-6, rtol=0)


def test_rank_beyond_the_width_trains_the_whole_weight(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    expected = copy.deepcopy(tiny_clip).encode_image(data.images)
    method = MiLoRA(rank=100, dropout=0.0)
    method.prepare(tiny_clip)
    method.begin_task(task, data)
    assert all(a.base.weight.abs().max() < 1e-5 for a in method.adapters.values())
    torch.testing.assert_close(tiny_clip.encode_image(data.images), expected, atol=1e-4, rtol=0)


def test_refuses_rank_zero():
    with pytest.raises(ClbenchError, match="rank=0: input should be greater than or equal to 1"):
        MiLoRA(rank=0)
