"""NuSA-CL: as the release computes it, and never inside the principal subspace."""

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.methods.nusa import NuSA
from clbench.testing.driving import begin, end, run_steps, run_task
from tests.golden.golden import TASK, assert_merged_as_golden, build_clip, read, train


def leak(method, before):
    """Largest share of an update inside the principal subspace, on either side."""
    shares = []
    for name, adapter in method.adapters.items():
        u, s, vh = torch.linalg.svd(before[name].double())
        k = int((s.square().cumsum(0) / s.square().sum() < method.rho).sum()) + 1
        delta = adapter.delta()
        inside = torch.stack([(u[:, :k].T @ delta).norm(), (delta @ vh[:k].T).norm()])
        shares.append(inside.max() / delta.norm())
    return max(shares).item()


def trained(model, task, data, **options):
    """A method in the middle of a task, and the weights from before it."""
    before = {name: layer.weight.detach().clone() for name, layer in model.attention_linears()}
    method = NuSA(rank=16, **options)
    method.prepare(model)
    driven = begin(method, task, data, rate=1e-2)
    run_steps(method, data, driven, range(6))
    return method, before


def test_reproduces_the_released_training():
    golden = read("nusa_r16_rho95")
    hp, tensors = golden.metadata["hp"], golden.tensors
    model = build_clip(golden.metadata["cfg"], golden.below("before."))
    method = NuSA(rank=hp["r"], rho=hp["rho"], alpha=hp["alpha"], dropout=0.0)
    method.prepare(model)

    losses = train(method, golden, 0)
    torch.testing.assert_close(torch.tensor(losses), tensors["task0.losses"], atol=1e-4, rtol=0)
    assert torch.equal(method.ranks, tensors["task0.ranks"])

    method.end_task(TASK, None)  # type: ignore[arg-type]
    # AdamW depends on the basis of the null space, and so on the processor that decomposes:
    # 3e-5 have been seen, where the first task changes these weights by up to 6e-3.
    assert_merged_as_golden(model, golden, atol=1e-4)

    losses = train(method, golden, 1)
    torch.testing.assert_close(torch.tensor(losses), tensors["task1.losses"], atol=1e-4, rtol=0)
    assert torch.equal(method.ranks, tensors["task1.ranks"])


@pytest.mark.parametrize("rho", [0.8, 0.95])
def test_principal_subspace_is_untouched(tiny_clip, tiny_task_data, rho):
    method, before = trained(tiny_clip, *tiny_task_data(0), rho=rho)
    assert leak(method, before) < 3e-6


@pytest.mark.parametrize("options", [{"trainable": "mv"}, {"trainable": "muv"}, {"space": "top"}])
def test_ablations_do_touch_it(tiny_clip, tiny_task_data, options):
    method, before = trained(tiny_clip, *tiny_task_data(0), **options)
    assert leak(method, before) > 1e-3


@pytest.mark.parametrize(
    ("trainable", "moving"),
    [("m", {"core"}), ("mv", {"core", "down"}), ("muv", {"core", "down", "up"})],
)
def test_only_the_declared_factors_train(tiny_clip, tiny_task_data, trainable, moving):
    task, data = tiny_task_data(0)
    method = NuSA(rank=16, trainable=trainable)
    method.prepare(tiny_clip)
    driven = begin(method, task, data)
    assert all(not adapter.delta().any() for adapter in method.adapters.values())
    run_steps(method, data, driven, range(2))
    with_gradient = {n.rsplit(".")[-1] for n, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == moving
    size = {"core": 16 * 16, "down": 16 * 64, "up": 64 * 16}
    expected = len(method.adapters) * sum(size[factor] for factor in moving)
    assert method.footprint().trainable == expected


def test_default_size_on_vit_b_16_is_the_published_one():
    assert 12 * 4 * 2 * NuSA().rank ** 2 == pytest.approx(1.57e6, rel=0.01)


def test_random_space_is_drawn_anew_and_orthonormal(tiny_clip, tiny_task_data):
    method = NuSA(rank=8, space="random")
    method.prepare(tiny_clip)
    first, second = [], []
    for drawn, index in ((first, 0), (second, 1)):
        method.begin_task(*tiny_task_data(index))
        drawn += [adapter.down.detach().clone() for adapter in method.adapters.values()]
    for before, after in zip(first, second, strict=True):
        torch.testing.assert_close(before @ before.T, torch.eye(8), atol=1e-5, rtol=0)
        assert not torch.allclose(before, after, atol=0.1)


def test_rank_beyond_the_null_space_changes_nothing_but_the_scale(tiny_clip, tiny_task_data):
    method = NuSA(rank=200)
    method.prepare(tiny_clip)
    method.begin_task(*tiny_task_data(0))
    principal, null, used = method.ranks.T
    assert torch.equal(principal + null, torch.full_like(null, 64))
    assert torch.equal(used, null)
    for adapter, count in zip(method.adapters.values(), used.tolist(), strict=True):
        assert adapter.down.shape == (200, 64)
        assert adapter.down[:count].norm(dim=1).min() > 0.99
        assert not adapter.down[count:].any()
        assert adapter.scale == pytest.approx(2 / 200**0.5)


def test_changes_the_chosen_weights_only(tiny_clip, tiny_task_data):
    before = {name: layer.weight.detach().clone() for name, layer in tiny_clip.attention_linears()}
    method = NuSA(encoders="vision", layers=[1], projections="qv")
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=2)
    chosen = [f"network.visual.transformer.resblocks.1.attn.{p}_proj" for p in "qv"]
    assert list(method.adapters) == chosen
    weights = {
        n.removesuffix(".base.weight").removesuffix(".weight"): p
        for n, p in tiny_clip.named_parameters()
    }
    assert [n for n in before if not torch.equal(before[n], weights[n])] == chosen


def test_each_task_looks_at_the_merged_weight(tiny_clip, tiny_task_data):
    method = NuSA(rank=16)
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    run_task(method, task, data, steps=6, rate=1e-2)
    merged = {name: a.base.weight.detach().clone() for name, a in method.adapters.items()}
    task, data = tiny_task_data(1)
    driven = begin(method, task, data, rate=1e-2)
    run_steps(method, data, driven, range(6))
    assert leak(method, merged) < 3e-6
    end(method, task, data)
    assert method.footprint().stored == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank=0: input should be greater than or equal to 1"),
        ({"rho": 1.5}, "rho=1.5: input should be less than or equal to 1"),
        ({"rho": float("nan")}, "rho=nan: input should be"),
        ({"trainable": "u"}, "trainable='u': input should be 'm', 'mv' or 'muv'"),
        ({"space": "head"}, "space='head': input should be 'tail', 'top' or 'random'"),
        ({"projections": "qx"}, "projections='qx': must be a subset of 'qkvo'"),
        ({"projections": ""}, "projections='': must be a subset of 'qkvo'"),
        ({"dropout": -0.1}, "dropout=-0.1: input should be greater than or equal to 0"),
    ],
)
def test_refuses_impossible_values(arguments, message):
    with pytest.raises(ClbenchError, match=message):
        NuSA(**arguments)


def test_refuses_layers_that_do_not_exist(tiny_clip):
    with pytest.raises(ClbenchError, match="layer 7 does not exist"):
        NuSA(layers=[7]).prepare(tiny_clip)
