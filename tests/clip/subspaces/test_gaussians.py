"""Normal distributions: exact whatever the number of features, and small where there are few."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from clbench.clip.subspaces.gaussians import Gaussians


def features(count, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator)
    return torch.randn(count, width, generator=generator) @ mix + mix[0]


@pytest.mark.parametrize("count", [2, 4, 6, 50])
def test_agrees_with_the_definition(count):
    x = features(count)
    gaussians = Gaussians(6, 1e-2)
    gaussians.add(x)
    expected = torch.cov(x.T.double()) + 1e-2 * torch.eye(6)
    torch.testing.assert_close(gaussians.covariance(0), expected, atol=1e-5, rtol=1e-6)
    asked = features(5, seed=1)
    known = MultivariateNormal(x.double().mean(dim=0), expected)
    torch.testing.assert_close(
        gaussians.log_density(asked)[:, 0], known.log_prob(asked.double()), rtol=1e-4, atol=0
    )


def test_is_exact_where_variances_are_tiny():
    """Roots in float32 keep what covariances in float32 lose."""
    x = features(50) * torch.tensor([1.0, 1.0, 1.0, 1e-3, 1e-3, 1e-3])
    gaussians = Gaussians(6, 1e-9)
    gaussians.add(x)
    cov = torch.cov(x.T.double()) + 1e-9 * torch.eye(6)
    known = MultivariateNormal(x.double().mean(dim=0), cov).log_prob(x.double())
    torch.testing.assert_close(gaussians.log_density(x)[:, 0], known, rtol=1e-5, atol=1e-4)


def test_needs_little_memory_for_few_features():
    gaussians = Gaussians(6, 1e-4)
    for count in (1, 3, 50):
        gaussians.add(features(count))
    assert gaussians.sizes.tolist() == [1, 3, 6]
    assert gaussians.roots.shape == (10, 6)
    assert gaussians.log_density(features(4)).isfinite().all()


def test_draws_from_the_distribution_named():
    gaussians = Gaussians(6, 1e-2)
    sets = [features(40, seed=1), features(3, seed=2)]
    for x in sets:
        gaussians.add(x)
    which = torch.tensor([1, 0]).repeat(20_000)
    drawn = gaussians.sample(which, torch.Generator().manual_seed(0))
    again = gaussians.sample(which, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    for k, x in enumerate(sets):
        own = drawn[which == k].double()
        scale = gaussians.covariance(k).diagonal().max()
        assert (own.mean(dim=0) - x.mean(dim=0)).abs().max() < 0.05 * scale.sqrt()
        assert (torch.cov(own.T) - gaussians.covariance(k)).abs().max() < 0.05 * scale


def test_comes_back_from_a_checkpoint_in_its_size():
    gaussians, fresh = Gaussians(6, 1e-2), Gaussians(6, 1e-2)
    gaussians.add(features(3))
    gaussians.add(features(9))
    fresh.load_state_dict(gaussians.state_dict())
    assert len(fresh) == 2
    assert torch.equal(fresh.log_density(features(4)), gaussians.log_density(features(4)))


def test_needs_a_feature():
    with pytest.raises(ValueError, match="no features"):
        Gaussians(6, 1e-2).add(torch.zeros(0, 6))
