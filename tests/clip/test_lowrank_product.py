"""The low-rank product and its gradients are those of the plain formula, from less memory."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.lowrank import LowRankLinear
from clbench.clip.lowrank_product import Factors, lowrank_product


def factors(core: bool, bias: bool, trained: str, dtype: torch.dtype = torch.float64) -> Factors:
    """Factors of 7 inputs, 5 outputs and rank 3; the named ones require grad."""

    def matrix(name: str, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_(name in trained)

    return Factors(
        matrix("-", 5, 7),
        matrix("-", 5) if bias else None,
        matrix("d", 3, 7),
        matrix("c", 3, 3) if core else None,
        matrix("u", 5, 3),
    )


def plain(x: Tensor, f: Factors, scale: float, kept: Tensor | None) -> Tensor:
    """The update as a matrix, added to the layer."""
    down = f.down if f.core is None else f.core @ f.down
    inside = x if kept is None else x.masked_fill(~kept, 0)
    return F.linear(x, f.weight, f.bias) + F.linear(inside, scale * f.up @ down)


@pytest.mark.parametrize("trained", ["c", "dc", "dcu", "du", ""])
@pytest.mark.parametrize("dropping", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_product_and_gradients_are_those_of_the_full_matrix(trained, dropping, bias):
    f = factors("c" in trained, bias, trained)
    x = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    kept = torch.rand(x.shape) < 0.7 if dropping else None
    actual, expected = lowrank_product(x, f, 0.6, kept), plain(x, f, 0.6, kept)
    torch.testing.assert_close(actual, expected)
    leaves = [t for t in (x, f.down, f.core, f.up) if t is not None and t.requires_grad]
    gradient = torch.randn_like(actual)
    for one, other in zip(
        torch.autograd.grad(actual, leaves, gradient),
        torch.autograd.grad(expected, leaves, gradient),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_finite_differences():
    f = factors(core=True, bias=True, trained="dcu")
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    kept = torch.rand(x.shape) < 0.7
    torch.autograd.gradcheck(
        lambda x, d, c, u: lowrank_product(x, Factors(f.weight, f.bias, d, c, u), 0.6, kept),
        (x, f.down, f.core, f.up),
    )


def saved_bytes(layer: LowRankLinear, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, besides parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return sum(sizes.values())


def test_only_activations_of_the_width_of_the_rank_are_kept():
    layer = LowRankLinear(
        torch.nn.Linear(64, 64), 4, 1.0, dropout=0.25, core=True, trained=("core",)
    )
    layer.set_factors(down=torch.randn(4, 64), up=torch.randn(64, 4), core=torch.randn(4, 4))
    x = torch.randn(100, 64, requires_grad=True)
    assert saved_bytes(layer, x) == 4 * 100 * 4


def test_nothing_needs_the_gradient_of_a_first_layer():
    f = factors(core=True, bias=True, trained="c")
    lowrank_product(torch.randn(3, 7, dtype=torch.float64), f, 0.6, None).sum().backward()
    assert f.core is not None
    assert f.core.grad is not None
    assert (f.weight.grad, f.down.grad) == (None, None)


@pytest.mark.parametrize("training", [False, True])
def test_under_autocast_products_are_in_bfloat16_and_gradients_in_float32(training):
    layer = LowRankLinear(
        torch.nn.Linear(16, 16), 4, 0.5, dropout=0.25, core=True, trained=("core",)
    )
    layer.set_factors(down=torch.randn(4, 16), up=torch.randn(16, 4), core=torch.randn(4, 4))
    layer.train(training)
    x = torch.randn(8, 16, requires_grad=True)
    torch.manual_seed(3)
    single = layer(x)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, atol=0.2, rtol=0.05)
    half.sum().backward()
    assert layer.core is not None
    assert layer.core.grad is not None
    assert (layer.core.grad.dtype, x.grad.dtype) == (torch.float32, torch.float32)
