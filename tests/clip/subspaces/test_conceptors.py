"""Conceptors and their algebra."""

import pytest
import torch

from clbench.clip.subspaces.conceptors import (
    ConceptorMemory,
    both,
    capacity,
    complement,
    conceptor,
    either,
    floored,
    leading,
)


def features(*directions, count=200, seed=0):
    """Columns in five dimensions with energy in these directions only."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, count, generator=generator, dtype=torch.float64)
    mask = torch.zeros(5, 1, dtype=torch.float64)
    mask[list(directions)] = 1
    return x * mask


def passed(c, x):
    return ((c @ x).norm(dim=0).sum() / x.norm(dim=0).sum()).item()


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_the_aperture_grows_until_enough_passes_and_no_further(threshold):
    x = features(0, 1, 2)
    assert passed(conceptor(x, 0.1), x) < 0.5
    c = conceptor(x, 0.1, threshold, gain=1.1)
    assert threshold <= passed(c, x) < threshold + 0.1
    assert torch.equal(conceptor(x, 10.0, 0.5), conceptor(x, 10.0))


def test_and_is_what_both_use_and_or_what_either_does():
    c, b = (conceptor(features(*used), 100.0) for used in ((0, 1, 2), (2, 3)))
    expected = torch.tensor([0.0, 0, 1, 0, 0]), torch.tensor([1.0, 1, 1, 1, 0])
    for found, diagonal in zip((both(c, b), either(c, b)), expected, strict=True):
        torch.testing.assert_close(found.float(), torch.diag(diagonal), atol=1e-3, rtol=0)


def test_of_nothing_in_common_nothing_is_left():
    c, b = (conceptor(features(*used), 100.0) for used in ((0, 1), (3,)))
    assert capacity(both(c, b)) < 1e-6


def test_not_twice_is_nothing_done():
    c = conceptor(features(0, 1), 2.0)
    torch.testing.assert_close(complement(complement(c)), c)


def test_floor_drops_small_eigenvalues():
    c = torch.diag(torch.tensor([0.9, 0.3, 0.1]))
    torch.testing.assert_close(floored(c, 0.2), torch.diag(torch.tensor([0.9, 0.3, 0.0])))
    torch.testing.assert_close(leading(c, 1).abs(), torch.tensor([[1.0], [0], [0]]))


def test_memory_compares_grows_and_loads():
    memory = ConceptorMemory()
    rows = torch.randn(2, 5)
    assert torch.equal(memory.outside(rows), rows)
    memory.extend(conceptor(features(0, 1), 100.0), 0.2)
    assert memory.shared(conceptor(features(1, 2), 100.0))[1] == pytest.approx(0.5, abs=1e-2)
    memory.extend(conceptor(features(2), 100.0), 0.2)
    outside = memory.outside(rows)
    torch.testing.assert_close(outside[:, 3:], rows[:, 3:], atol=1e-3, rtol=0)
    assert outside[:, :3].abs().max() < 1e-3
    loaded = ConceptorMemory()
    loaded.load_state_dict(memory.state_dict())
    assert torch.equal(loaded.outside(rows), outside)
