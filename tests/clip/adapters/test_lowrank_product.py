"""The low-rank product and its gradients are those of the plain formula, from less memory."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters import lowrank_product
from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.adapters.lowrank_product import Factors, lowrank_products
from clbench.clip.layers.dropout import Kept
from clbench.clip.layers.together import apply_layers


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


def leaves(x: Tensor, layers: list[Factors]) -> list[Tensor]:
    """What gradients are taken for."""
    factors = [t for f in layers for t in (f.down, f.core, f.up)]
    return [t for t in (x, *factors) if t is not None and t.requires_grad]


@pytest.mark.parametrize("trained", ["c", "dc", "dcu", "du", ""])
@pytest.mark.parametrize("dropping", [None, "few", "many"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_products_and_gradients_are_those_of_full_matrices(
    trained, dropping, bias, count, monkeypatch
):
    if dropping == "many":
        monkeypatch.setattr(lowrank_product, "SMALL", 0)
    layers = [factors("c" in trained, bias, trained) for _ in range(count)]
    x = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    masks = list(torch.rand(count, *x.shape) < 0.7) if dropping else [None] * count
    kept = Kept.of(torch.stack(masks)) if dropping else None
    actual = lowrank_products(x, layers, 0.6, kept)
    expected = [plain(x, f, 0.6, mask) for f, mask in zip(layers, masks, strict=True)]
    gradients = [torch.randn_like(y) for y in actual]
    for y, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(y, other)
    for one, other in zip(
        torch.autograd.grad(actual, leaves(x, layers), gradients),
        torch.autograd.grad(expected, leaves(x, layers), gradients),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_finite_differences():
    f = factors(core=True, bias=True, trained="dcu")
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    kept = Kept.of(torch.rand(1, 3, 7) < 0.7)
    torch.autograd.gradcheck(
        lambda x, d, c, u: lowrank_products(x, [Factors(f.weight, f.bias, d, c, u)], 0.6, kept),
        (x, f.down, f.core, f.up),
    )


def test_an_output_that_nobody_uses_adds_nothing_to_the_gradients():
    layers = [factors(core=True, bias=True, trained="c") for _ in range(2)]
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    lowrank_products(x, layers, 0.6, None)[1].sum().backward()
    unused, used = (f.core for f in layers)
    assert unused is not None
    assert used is not None
    assert torch.equal(unused.grad, torch.zeros(3, 3))
    together = x.grad
    x.grad = None
    plain(x, layers[1], 0.6, None).sum().backward()
    torch.testing.assert_close(together, x.grad)


def layer(scale: float = 0.5, dropout: float = 0.0) -> LowRankLinear:
    """A layer with an update that is not zero."""
    made = LowRankLinear(torch.nn.Linear(16, 8), 4, scale, dropout=dropout, core=True)
    made.set_factors(down=torch.randn(4, 16), up=torch.randn(8, 4), core=torch.randn(4, 4))
    return made


def nodes(outputs: Sequence[Tensor]) -> int:
    """Different autograd nodes that the outputs come from."""
    return len({output.grad_fn for output in outputs})


def test_layers_of_one_kind_are_applied_together_and_others_one_by_one():
    x = torch.randn(5, 16)
    alike, other = [layer(), layer()], layer(scale=0.25)
    for layers, count in ((alike, 1), ([*alike, other], 3), ([*alike, torch.nn.Linear(16, 8)], 3)):
        outputs = apply_layers(layers, x)
        assert nodes(outputs) == count
        for output, each in zip(outputs, layers, strict=True):
            torch.testing.assert_close(output, each(x))


@pytest.mark.parametrize("change", ["hook", "merge", "evaluate", "replace"])
def test_layers_that_differ_in_their_state_are_called_as_modules(change):
    layers, x = [layer(dropout=0.25), layer(dropout=0.25)], torch.randn(5, 16)
    seen: list[int] = []
    if change == "hook":
        layers[1].register_forward_hook(lambda *_: seen.append(1))
    elif change == "merge":
        layers[1].merge()
    elif change == "evaluate":
        layers[1].eval()
    else:
        layers[1] = torch.nn.Linear(16, 8)
    outputs = apply_layers(layers, x)
    assert nodes(outputs) == 2
    assert len(seen) == (change == "hook")
    if change != "hook":
        torch.testing.assert_close(outputs[1], layers[1](x))


def test_layers_applied_together_drop_different_inputs():
    layers = [layer(dropout=0.5), layer(dropout=0.5)]
    layers[1].load_state_dict(layers[0].state_dict())
    one, other = apply_layers(layers, torch.randn(50, 16))
    assert nodes([one, other]) == 1
    assert not torch.allclose(one, other)


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
    lowrank_products(torch.randn(3, 7, dtype=torch.float64), [f], 0.6, None)[0].sum().backward()
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
