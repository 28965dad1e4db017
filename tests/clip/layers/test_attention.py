"""SplitAttention computes what nn.MultiheadAttention computes and packs back to its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clbench.clip.layers.attention import SplitAttention, packed_state_dict


@pytest.fixture
def packed() -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    return attention


def causal_mask(length: int) -> Tensor:
    return torch.full((length, length), float("-inf")).triu(1)


@pytest.mark.parametrize("mask", [None, causal_mask(7), causal_mask(7) < 0])
def test_equals_packed_attention(packed: nn.MultiheadAttention, mask: Tensor | None) -> None:
    x = torch.randn(3, 7, 32)
    split = SplitAttention.from_packed(packed)
    expected = packed(x, x, x, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(split(x, x, x, attn_mask=mask)[0], expected, rtol=0, atol=1e-6)


def test_equals_packed_attention_with_a_mask_per_head(packed: nn.MultiheadAttention) -> None:
    x = torch.randn(3, 7, 32)
    mask = torch.randn(3 * 4, 7, 7)
    expected = packed(x, x, x, attn_mask=mask, need_weights=False)[0]
    actual = SplitAttention.from_packed(packed)(x, x, x, attn_mask=mask)[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_attends_to_other_keys_and_values(packed: nn.MultiheadAttention) -> None:
    query, key, value = torch.randn(2, 3, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    expected = packed(query, key, value, need_weights=False)[0]
    actual = SplitAttention.from_packed(packed)(query, key, value)[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_is_causal_equals_the_causal_mask(packed: nn.MultiheadAttention) -> None:
    x = torch.randn(2, 6, 32)
    split = SplitAttention.from_packed(packed)
    masked = split(x, x, x, attn_mask=causal_mask(6))[0]
    torch.testing.assert_close(split(x, x, x, is_causal=True)[0], masked, rtol=0, atol=1e-6)


def test_gradients_equal_those_of_the_packed_matrix(packed: nn.MultiheadAttention) -> None:
    x = torch.randn(2, 5, 32)
    split = SplitAttention.from_packed(packed)
    packed(x, x, x, need_weights=False)[0].square().sum().backward()
    split(x, x, x)[0].square().sum().backward()
    layers = (split.q_proj, split.k_proj, split.v_proj)
    gradient = torch.cat([layer.weight.grad for layer in layers])
    torch.testing.assert_close(gradient, packed.in_proj_weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_packing_gives_back_the_weights_bit_for_bit(bias: bool) -> None:
    packed = nn.MultiheadAttention(16, 2, bias=bias, batch_first=True)
    state = SplitAttention.from_packed(packed).packed_state()
    expected = packed.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_weights_are_copies_and_frozen_weights_stay_frozen(packed: nn.MultiheadAttention) -> None:
    packed.in_proj_weight.requires_grad = False
    split = SplitAttention.from_packed(packed)
    before = split.v_proj.weight.clone()
    nn.init.zeros_(packed.in_proj_weight)
    assert torch.equal(split.v_proj.weight, before)
    assert not split.q_proj.weight.requires_grad
    assert split.q_proj.bias.requires_grad


def test_splitting_draws_no_random_numbers(packed: nn.MultiheadAttention) -> None:
    state = torch.get_rng_state()
    SplitAttention.from_packed(packed)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options",
    [{"batch_first": False}, {"dropout": 0.1}, {"kdim": 8}, {"add_bias_kv": True}],
)
def test_refuses_what_it_cannot_reproduce(options: dict[str, object]) -> None:
    packed = nn.MultiheadAttention(16, 2, **{"batch_first": True, **options})
    with pytest.raises(ValueError, match="can be split"):
        SplitAttention.from_packed(packed)


def test_refuses_attention_weights_and_uneven_heads(packed: nn.MultiheadAttention) -> None:
    x = torch.randn(1, 2, 32)
    with pytest.raises(ValueError, match="not computed"):
        SplitAttention.from_packed(packed)(x, x, x, need_weights=True)
    with pytest.raises(ValueError, match="not divisible"):
        SplitAttention(10, 4)


def test_a_whole_network_packs_back_to_its_names(packed: nn.MultiheadAttention) -> None:
    network = nn.Sequential(nn.Linear(32, 32), SplitAttention.from_packed(packed))
    state = packed_state_dict(network)
    assert torch.equal(state["1.in_proj_weight"], packed.in_proj_weight)
    assert set(state) == {"0.weight", "0.bias", *(f"1.{name}" for name in packed.state_dict())}


def test_packing_with_an_adapter_in_place_names_it(packed: nn.MultiheadAttention) -> None:
    split = SplitAttention.from_packed(packed)
    split.q_proj = nn.Sequential(split.q_proj)
    with pytest.raises(ValueError, match=r"1: .*unmerged adapters: q_proj"):
        packed_state_dict(nn.Sequential(nn.Identity(), split))
