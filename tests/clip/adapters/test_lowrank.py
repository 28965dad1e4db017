"""Low-rank layers: the right sum, trained where declared, merged without a trace."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch import nn

from clbench.clip.adapters.attach import attach, detach
from clbench.clip.adapters.lowrank import LowRankLinear, low_rank_scale
from clbench.clip.model import CLIP
from clbench.core.errors import ClbenchError
from clbench.testing.driving import saved


def filled(core: bool | Literal["diagonal"], dropout: float = 0.0, **options: Any) -> LowRankLinear:
    """A layer of 6 inputs, 5 outputs and rank 3 with random factors."""
    layer = LowRankLinear(nn.Linear(6, 5), 3, 0.7, core=core, dropout=dropout, **options)
    middle = None if layer.core is None else torch.randn(layer.core.shape)
    layer.set_factors(down=torch.randn(3, 6), up=torch.randn(5, 3), core=middle)
    return layer


@pytest.mark.parametrize("core", [False, True, "diagonal"])
def test_forward_is_the_dense_sum(core):
    layer, x = filled(core), torch.randn(2, 4, 6)
    middle = layer.core if core is True else torch.diag(layer.core) if core else torch.eye(3)
    weight = layer.base.weight + 0.7 * layer.up @ middle @ layer.down
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base.bias)
    torch.testing.assert_close(layer.delta().float(), weight - layer.base.weight)


@pytest.mark.parametrize("core", [False, True, "diagonal"])
def test_merging_leaves_outputs_as_they_are(core):
    layer, x = filled(core), torch.randn(7, 6)
    before = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.base(x), before, atol=1e-5, rtol=0)
    assert not layer.delta().any()


def test_merging_twice_adds_the_update_once():
    layer = filled(core=True)
    layer.merge()
    weight = layer.base.weight.clone()
    layer.merge()
    assert torch.equal(layer.base.weight, weight)


def test_subtracting_balances_the_update():
    layer, x = filled(core=False), torch.randn(7, 6)
    before = layer.base(x)
    layer.subtract()
    torch.testing.assert_close(layer(x), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("core", [True, "diagonal"])
@pytest.mark.parametrize("trained", [("core",), ("core", "down"), ("down", "core", "up")])
def test_gradients_reach_the_declared_factors_only(trained, core):
    layer = filled(core, trained=trained)
    layer(torch.randn(2, 6)).sum().backward()
    assert {n for n, p in layer.named_parameters() if p.grad is not None} == set(trained)


def test_a_diagonal_core_gates_each_rank():
    layer, x = filled("diagonal", trained=("down", "core", "up")), torch.randn(2, 6)
    layer(x).sum().backward()
    base, down, gates, up = (
        t.detach().clone().requires_grad_() for t in (x, layer.down, layer.core, layer.up)
    )
    (0.7 * (base @ down.T * gates) @ up.T).sum().backward()
    torch.testing.assert_close(layer.core.grad, gates.grad)
    torch.testing.assert_close(layer.down.grad, down.grad)
    torch.testing.assert_close(layer.up.grad, up.grad)


def test_dropout_acts_on_the_update_and_only_in_training():
    layer, x = filled(core=False, dropout=0.5), torch.ones(4000, 6)
    update = layer(x) - layer.base(x)
    assert update.std(dim=0).min() > 0.1
    layer.eval()
    exact = layer(x) - layer.base(x)
    torch.testing.assert_close(update.mean(0), exact.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(exact, exact[:1].expand_as(exact))


def test_a_new_layer_is_the_layer_it_wraps():
    base, x = nn.Linear(6, 5), torch.randn(2, 6)
    assert torch.equal(LowRankLinear(base, 3, 1.0, core=True)(x), base(x))


@pytest.mark.parametrize("merged", [False, True])
def test_state_brings_the_outputs_along(merged):
    layer, x = filled(core=True), torch.randn(2, 6)
    other = filled(core=True)
    other.merge()
    if merged:
        layer.merge()
    other.load_state_dict(saved(layer.state_dict()))
    assert torch.equal(other(x), layer(x))
    assert other.active is layer.active is not merged


def test_a_state_that_does_not_say_so_may_hold_an_update():
    layer, x = filled(core=True), torch.randn(2, 6)
    state = {name: value for name, value in layer.state_dict().items() if name != "_extra_state"}
    other = copy.deepcopy(layer)
    other.merge()
    assert not other.active
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))


def test_scale_uses_the_root_of_the_rank():
    assert low_rank_scale(2.0, 128) == pytest.approx(0.1768, abs=1e-4)


def test_attached_layers_stand_in_the_model_and_come_off_merged(tiny_clip, tiny_task_data):
    images = tiny_task_data(0)[1].images
    names = list(tiny_clip.export_state_dict())
    adapters = attach(tiny_clip, tiny_clip.attention_linears(projections=["v"]), 4, 0.5)
    assert len(adapters) == 4
    for name, adapter in adapters.items():
        assert tiny_clip.get_submodule(name) is adapter
        adapter.set_factors(down=torch.randn(4, 64), up=0.1 * torch.randn(64, 4))
    with pytest.raises(ValueError, match="adapters"):
        tiny_clip.export_state_dict()

    before = tiny_clip.encode_image(images)
    detach(tiny_clip)
    torch.testing.assert_close(tiny_clip.encode_image(images), before, atol=1e-5, rtol=0)
    assert list(tiny_clip.export_state_dict()) == names


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_base_that_wants_gradients_is_refused_instead_of_getting_none(part, core):
    layer, x = filled(core), torch.randn(2, 6)
    expected = layer(x)
    getattr(layer.base, part).requires_grad_(True)
    with pytest.raises(ClbenchError, match=r"call base\.requires_grad_\(False\), or merge"):
        layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), expected), "a test asks for no gradients"
    layer.merge()
    layer(x).sum().backward()
    assert getattr(layer.base, part).grad is not None, "the plain layer trains"


def test_one_such_base_is_refused_among_layers_that_are_computed_together(tiny_clip):
    images = torch.zeros(1, 3, 32, 32)
    adapters = attach(tiny_clip, tiny_clip.attention_linears("vision"), 4, 0.5)
    for adapter in adapters.values():
        adapter.set_factors(down=torch.randn(4, 64), up=torch.randn(64, 4))
    last = list(adapters.values())[-2]
    last.base.weight.requires_grad_(True)
    with pytest.raises(ClbenchError, match="requires grad"):
        tiny_clip.encode_image(images)
    with torch.no_grad():
        assert tiny_clip.encode_image(images).isfinite().all()


def test_a_rank_far_above_the_dimension_names_the_setting(tiny_clip: CLIP) -> None:
    layers = list(tiny_clip.attention_linears())
    with pytest.raises(ClbenchError, match=r"rank 100000 is far above the 64 .*lower method\.rank"):
        attach(tiny_clip, layers, 100_000, 1.0)
    assert len(attach(tiny_clip, layers, 4 * 64, 1.0)) == len(layers)
