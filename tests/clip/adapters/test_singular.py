"""A linear layer of which the smaller singular components are trained."""

import pytest
import torch
from torch import nn

from clbench.clip.adapters.attach import detach
from clbench.clip.adapters.singular import SingularLinear
from clbench.clip.subspaces.effective_rank import effective_rank


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return SingularLinear(nn.Linear(7, 5))


def split(layer, kept):
    u, s, vh = torch.linalg.svd(layer.base.weight.detach(), full_matrices=False)
    layer.split(u, s, vh, kept)
    return u, s, vh


def test_splitting_and_merging_change_no_output(layer):
    x = torch.randn(3, 4, 7)
    before = layer(x)
    split(layer, 2)
    assert layer.active
    torch.testing.assert_close(layer(x), before)
    layer.up.data.mul_(2)
    changed = layer(x)
    assert not torch.allclose(changed, before)
    layer.merge()
    assert not layer.active
    torch.testing.assert_close(layer(x), changed)
    assert all(
        not tensor.numel() for name, tensor in layer.state_dict().items() if "base" not in name
    )


def test_components_are_the_smaller_ones(layer):
    weight = layer.base.weight.detach().clone()
    u, s, vh = split(layer, 2)
    torch.testing.assert_close(layer.values.detach(), s[2:])
    torch.testing.assert_close(layer.base.weight.detach(), (u[:, :2] * s[:2]) @ vh[:2])
    torch.testing.assert_close(layer.base.weight.double() + layer.delta(), weight.double())
    assert not layer.base.weight.requires_grad
    assert all(part.requires_grad for part in (layer.up, layer.values, layer.down))


def test_confining_takes_out_what_lies_along_the_kept_components(layer):
    u, _, vh = split(layer, 3)
    up, down = torch.randn(5, 2), torch.randn(2, 7)
    expected = up - u[:, :3] @ u[:, :3].T @ up, down - down @ vh[:3].T @ vh[:3]
    layer.confine(up, down)
    torch.testing.assert_close((up, down), expected)


def test_loads_whatever_was_saved(layer):
    split(layer, 2)
    layer.values.data.mul_(3)
    other = SingularLinear(nn.Linear(7, 5))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7)
    assert torch.equal(other(x), layer(x))
    layer.merge()
    other.load_state_dict(layer.state_dict())
    assert not other.active
    assert torch.equal(other(x), layer(x))


def test_detaching_puts_the_plain_layer_back(tiny_clip):
    before = tiny_clip.export_state_dict()
    rank = effective_rank(tiny_clip, "vision")
    for name, linear in tiny_clip.attention_linears():
        layer = SingularLinear(linear)
        split(layer, 3)
        tiny_clip.replace(name, layer)
    assert effective_rank(tiny_clip, "vision") == rank
    detach(tiny_clip)
    after = tiny_clip.export_state_dict()
    assert after.keys() == before.keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name])
