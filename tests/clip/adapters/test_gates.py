"""Gates: the larger side counts, of each input's own task, and noise lets them learn."""

import pytest
import torch

from clbench.clip.adapters.gates import TEMPERATURE, Gates


def make_gates(tasks: int = 2) -> Gates:
    gates, generator = Gates(3, 4), torch.Generator().manual_seed(0)
    for _ in range(tasks):
        gate = gates.grow(generator)
        assert gate.weight.abs().max() <= 1  # sqrt(6 / (4 + 2))
        assert not gate.bias.any()
        gate.bias.data.normal_(generator=generator)
    return gates


@torch.no_grad()
def test_a_block_is_open_where_the_second_side_is_larger():
    gates, x = make_gates(), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    found = gates(x, 1)
    for block in range(3):
        sides = x @ gates.sets[1].weight[block].T + gates.sets[1].bias[block]
        assert torch.equal(found[block], (sides[:, 1] > sides[:, 0]).float())
    assert 0 < found.mean() < 1


@torch.no_grad()
def test_every_input_has_the_gates_of_its_task():
    gates, x = make_gates(), torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    tasks = torch.tensor([1, 0, 0, 1])
    alone = [gates(x[i : i + 1], int(task)) for i, task in enumerate(tasks)]
    assert torch.equal(gates(x, tasks), torch.cat(alone, dim=1))


def test_noise_opens_by_chance_and_the_softmax_has_the_gradient():
    gates, x = make_gates(1), torch.randn(1, 4, generator=torch.Generator().manual_seed(3))
    many, generator = x.expand(4000, -1), torch.Generator().manual_seed(4)
    found = gates(many, 0, generator)
    assert set(found.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    sides = x @ gates.sets[0].weight.transpose(1, 2) + gates.sets[0].bias[:, None]
    expected = sides[:, 0].softmax(dim=-1)[:, 1]  # Gumbel noise and argmax draw from the softmax
    torch.testing.assert_close(found.mean(dim=1), expected, atol=0.03, rtol=0)

    generator = torch.Generator().manual_seed(5)
    (grad,) = torch.autograd.grad(gates(x, 0, generator).sum(), gates.sets[0].bias)
    drawn = torch.rand(3, 1, 2, generator=torch.Generator().manual_seed(5))
    noisy = (sides - (-drawn.log()).log()).detach().requires_grad_()
    (noisy / TEMPERATURE).softmax(dim=-1)[..., 1].sum().backward()
    torch.testing.assert_close(grad, noisy.grad[:, 0])


@pytest.mark.parametrize("tasks", [0, torch.tensor([0, 0])])
def test_without_noise_the_same_inputs_give_the_same_blocks(tasks):
    gates, x = make_gates(1), torch.ones(2, 4)
    assert torch.equal(gates(x, tasks), gates(x, tasks))
