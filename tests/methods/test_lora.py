"""LoRA: as released, equal to training dense factors by hand, and merged after each task."""

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from clbench.core.errors import ClbenchError
from clbench.methods.lora import LoRA
from clbench.testing.driving import begin, end, optimization, run_steps
from tests.golden.golden import TASK, assert_merged_as_golden, build_clip, read, train

RANK, ALPHA = 4, 2.0


class DenseUpdate(torch.nn.Module):
    """``W + c B A`` as a dense weight: the definition, without any of the code under test."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.down, self.up = torch.nn.Parameter(down), torch.nn.Parameter(up)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + ALPHA / RANK**0.5 * self.up @ self.down


def prepared(model):
    method = LoRA(rank=RANK, alpha=ALPHA, dropout=0.0)
    method.prepare(model)
    return method


def test_reproduces_the_released_training():
    golden = read("lora_r8")
    hp, tensors = golden.metadata["hp"], golden.tensors
    model = build_clip(golden.metadata["cfg"], golden.below("before."))
    method = LoRA(rank=hp["r"], alpha=hp["alpha"], dropout=0.0)
    method.prepare(model)

    def start_from_golden_factors(task):
        places = [f"{i}.{p}" for i in range(4) for p in ("q_proj", "k_proj", "v_proj", "proj")]
        for place, adapter in zip(places, method.adapters.values(), strict=True):
            down = tensors[f"task{task}.A0.{place}"]
            adapter.set_factors(down=down, up=torch.zeros_like(adapter.up))

    losses = train(method, golden, 0, lambda: start_from_golden_factors(0))
    torch.testing.assert_close(torch.tensor(losses), tensors["task0.losses"], atol=1e-4, rtol=0)

    method.end_task(TASK, None)  # type: ignore[arg-type]
    assert_merged_as_golden(model, golden)

    losses = train(method, golden, 1, lambda: start_from_golden_factors(1))
    torch.testing.assert_close(torch.tensor(losses), tensors["task1.losses"], atol=1e-4, rtol=0)


def test_two_tasks_equal_training_dense_weights(tiny_clip, tiny_task_data):
    dense = copy.deepcopy(tiny_clip).requires_grad_(False)
    method = prepared(tiny_clip)
    for index in range(2):
        task, data = tiny_task_data(index)
        driven = begin(method, task, data)
        names = dense.attention_linears()
        for (_, layer), adapter in zip(names, method.adapters.values(), strict=True):
            start = DenseUpdate(adapter.down.detach().clone(), adapter.up.detach().clone())
            parametrize.register_parametrization(layer, "weight", start)

        reference = copy.copy(method)  # the same loss on the other model
        reference._modules = {"model": dense}
        expected = run_steps(reference, data, optimization(reference), range(8))
        losses = run_steps(method, data, driven, range(8))
        assert losses == pytest.approx(expected, abs=1e-5)

        end(method, task, data)
        for (_, layer), adapter in zip(names, method.adapters.values(), strict=True):
            parametrize.remove_parametrizations(layer, "weight")  # leaves W + c B A
            layer.weight.requires_grad_(False)
            torch.testing.assert_close(adapter.base.weight, layer.weight, atol=1e-5, rtol=0)


def test_starts_each_task_unchanged_with_new_random_factors(tiny_clip, tiny_task_data):
    _, data = tiny_task_data(0)
    method = prepared(tiny_clip)
    expected = tiny_clip.encode_image(data.images)
    factors = []
    for index in range(2):
        task, data_of_task = tiny_task_data(index)
        method.begin_task(task, data_of_task)
        torch.testing.assert_close(tiny_clip.encode_image(data.images), expected)
        factors.append(next(iter(method.adapters.values())).down.detach().clone())
        method.end_task(task, data_of_task)
    assert not torch.equal(*factors)
    bound = (6 / (1 + 5) / 64) ** 0.5  # Kaiming-uniform with a = sqrt 5 on 64 inputs
    assert 0.9 * bound < factors[0].abs().max() <= bound


def test_starts_in_the_tail_of_the_current_weight_and_may_leave_it(tiny_clip, tiny_task_data):
    method = LoRA(rank=RANK, alpha=ALPHA, dropout=0.0, start="tail")
    method.prepare(tiny_clip)
    for index in range(2):
        task, data = tiny_task_data(index)
        driven = begin(method, task, data)
        starts = []
        for adapter in method.adapters.values():
            vh = torch.linalg.svd(adapter.base.weight.detach().double())[2]
            down = adapter.down.detach().double()
            gram = torch.eye(RANK, dtype=torch.float64) / 3
            torch.testing.assert_close(down @ down.T, gram, atol=1e-5, rtol=0)
            assert (down @ vh[:-RANK].T).abs().max() < 1e-5
            assert not adapter.up.any()
            starts.append((down, vh))
        run_steps(method, data, driven, range(4))
        for adapter, (down, vh) in zip(method.adapters.values(), starts, strict=True):
            assert not torch.equal(adapter.down, down)
            assert (adapter.delta() @ vh[:-RANK].T).norm() > 1e-2 * adapter.delta().norm()
        end(method, task, data)


def test_a_rank_beyond_the_width_starts_from_all_directions(tiny_clip, tiny_task_data):
    method = LoRA(rank=100, dropout=0.0, start="tail")
    method.prepare(tiny_clip)
    method.begin_task(*tiny_task_data(0))
    for adapter in method.adapters.values():
        width = adapter.base.in_features
        assert (adapter.down.norm(dim=1) > 0).sum() == width
        gram = 3 * adapter.down.T @ adapter.down
        torch.testing.assert_close(gram, torch.eye(width), atol=1e-5, rtol=0)


def test_factors_depend_on_the_seed_only(tiny_clip, tiny_task_data):
    def drawn(seed, noise):
        torch.manual_seed(seed)
        method = prepared(copy.deepcopy(tiny_clip))
        torch.rand(noise)  # whatever else draws
        method.begin_task(*tiny_task_data(0))
        return next(iter(method.adapters.values())).down

    assert torch.equal(drawn(1, 0), drawn(1, 5))
    assert not torch.equal(drawn(1, 0), drawn(2, 0))


def test_default_size_on_vit_b_16_is_the_published_one():
    # 12 blocks x 4 projections x (A and B) of rank 128 in widths 768 and 512
    assert LoRA().rank * 2 * 4 * 12 * (768 + 512) == pytest.approx(15.7e6, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank=0: input should be greater than or equal to 1"),
        ({"alpha": -1.0}, "alpha=-1.0: input should be greater than 0"),
        ({"dropout": 1.0}, "dropout=1.0: input should be less than 1"),
    ],
)
def test_refuses_impossible_values(arguments, message):
    with pytest.raises(ClbenchError, match=message):
        LoRA(**arguments)
