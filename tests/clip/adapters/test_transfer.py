"""Maps of single tasks within directions of a layer's input."""

import pytest
import torch
from torch import nn

from clbench.clip.adapters.transfer import Transfer, TransferLinear


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return TransferLinear(nn.Linear(6, 4), Transfer(6))


def basis(count=2, seed=1):
    columns = torch.randn(6, count, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(columns)[0]


def test_a_map_acts_within_its_directions_only(layer):
    x, u = torch.randn(5, 6), basis()
    plain = layer(x)
    layer.transfer.start(3, u, torch.eye(2))
    torch.testing.assert_close(layer(x), plain)
    s = torch.randn(2, 2)
    layer.transfer.trained.data.copy_(s)
    w, b = layer.base.weight, layer.base.bias
    torch.testing.assert_close(layer(x), x @ (w + w @ u @ s @ u.T - w @ u @ u.T).T + b)
    outside = x - x @ u @ u.T
    torch.testing.assert_close(layer(outside), layer.base(outside))


def test_what_is_taken_out_is_a_constant_for_the_weight(layer):
    x, u, s = torch.randn(5, 6), basis(), torch.randn(2, 2)
    layer.transfer.start(0, u, s)
    layer(x).sum().backward()
    whole = torch.ones(4, 5) @ x
    torch.testing.assert_close(layer.base.weight.grad, whole + whole @ u @ s.T @ u.T)
    assert layer.transfer.trained.grad.abs().max() > 0


def test_each_task_has_its_own_map_and_others_none(layer):
    x = torch.randn(5, 6)
    plain, answers = layer(x), {}
    for task in (1, 4):
        layer.transfer.start(task, basis(seed=task), torch.randn(2, 2))
        answers[task] = layer(x)
        layer.transfer.choose(task)
        assert torch.equal(layer(x), answers[task])
        layer.transfer.choose(None)
        layer.transfer.keep()
        layer.transfer.keep()
    assert torch.equal(layer(x), plain)
    for task, expected in {**answers, 0: plain, 2: plain}.items():
        layer.transfer.choose(task)
        torch.testing.assert_close(layer(x), expected)
    assert not torch.allclose(answers[1], answers[4])


def test_loads_whatever_was_saved(layer):
    x = torch.randn(5, 6)
    layer.transfer.start(1, basis(), torch.randn(2, 2))
    layer.transfer.keep()
    layer.transfer.start(2, basis(seed=5), torch.randn(2, 2))
    other = TransferLinear(nn.Linear(6, 4), Transfer(6))
    other.load_state_dict(layer.state_dict())
    for task in (None, 1, 2, 3):
        layer.transfer.choose(task)
        other.transfer.choose(task)
        assert torch.equal(other(x), layer(x))
