"""Dropout drops what it says, in training only."""

import pytest
import torch

from clbench.clip.layers.dropout import Dropout, Kept


def test_dropout_drops_the_asked_share_and_keeps_the_mean() -> None:
    dropout, x = Dropout(0.25), torch.ones(300, 7, 101)
    y = dropout(x)
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.005)
    assert not torch.equal(dropout(x), y)
    gradient = torch.autograd.grad(dropout(x.requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(gradient.unique(), torch.tensor([0.0, 1 / 0.75]))


def test_dropout_does_nothing_in_evaluation_or_without_share() -> None:
    x = torch.randn(4, 5)
    assert torch.equal(Dropout(0.25).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.3])
@pytest.mark.parametrize("apart", [1, 2, 3, 8, 64, 40_000 // 4])
def test_elements_are_dropped_independently_of_those_nearby(p: float, apart: int) -> None:
    dropped = (Dropout(p)(torch.ones(40_000)) == 0).double()
    correlation = torch.corrcoef(torch.stack([dropped[:-apart], dropped[apart:]]))[0, 1]
    assert abs(correlation) < 0.04


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.25, 1 / 3, 0.5, 0.875, 0.999])
def test_shares_of_any_number_of_binary_digits_are_met(p: float) -> None:
    dropped = (Dropout(p)(torch.ones(1_000_003)) == 0).double().mean().item()
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / 1e6) ** 0.5 + 2**-17)


def test_kept_elements_are_those_of_the_mask() -> None:
    mask = torch.rand(3, 5, 7) < 0.4
    assert torch.equal(Kept.of(mask).as_numbers(torch.float64), mask.double())
