"""L2: the penalty of the equation, and weights that stay near where the task found them."""

import copy

import pytest
import torch

from clbench.clip.merging import flatten
from clbench.core.errors import ClbenchError
from clbench.methods.l2 import L2
from clbench.testing.driving import begin, first_batch, run_steps, run_task


def test_penalty_is_half_the_squared_distance_to_the_start_of_the_task(tiny_clip, tiny_task_data):
    method = L2(strength=3.0)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    task, data = tiny_task_data(1)
    driven = begin(method, task, data)
    start = flatten(tiny_clip.parameters())
    assert method.loss(first_batch(data))["distance"].item() == 0
    run_steps(method, data, driven, range(3))
    expected = 1.5 * (flatten(tiny_clip.parameters()) - start).square().sum()
    torch.testing.assert_close(method.loss(first_batch(data))["distance"], expected)


def test_the_stronger_the_nearer_and_the_task_is_learned(tiny_clip, tiny_task_data):
    distances = []
    for strength in (0.0, 1.0, 10.0):
        model = copy.deepcopy(tiny_clip)
        start = flatten(model.parameters())
        method = L2(strength=strength)
        method.prepare(model)
        losses = run_task(method, *tiny_task_data(0), steps=8, rate=3e-4)
        distances.append((flatten(model.parameters()) - start).norm().item())
        assert losses[-1] < losses[0]
    assert distances[2] < 0.5 * distances[1] < 0.5 * distances[0]


def test_refuses_a_negative_strength():
    with pytest.raises(ClbenchError, match=r"strength=-1.0: input should be greater than or equal"):
        L2(strength=-1.0)
