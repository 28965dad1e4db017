"""Normal distributions of features: of a task, to recognise it, or of a class, to draw from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clbench.clip.growing import let_grow


class Gaussians(nn.Module):
    """Normal distributions that are kept for later tasks, by mean and root of the covariance.

    ``N(mu_k, R_k^T R_k + jitter I)``, where ``R_k^T R_k`` is the covariance of the features that
    the distribution was fitted to, with the divisor n - 1. A root has as many rows as there were
    features, or as features have numbers if that is less, so that few features need little memory.

    Args:
        width: numbers D of a feature.
        jitter: is added to the diagonal of every covariance.
    """

    means: Tensor
    """Of all K distributions, ``(K, D)``."""
    roots: Tensor
    """All R_k, one below the other, ``(R, D)``."""
    sizes: Tensor
    """Rows of each R_k, ``(K,)`` int64."""

    def __init__(self, width: int, jitter: float) -> None:
        super().__init__()
        self.jitter = jitter
        self.register_buffer("means", torch.zeros(0, width))
        self.register_buffer("roots", torch.zeros(0, width))
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "means", "roots", "sizes")

    def __len__(self) -> int:
        """Number of distributions."""
        return len(self.sizes)

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Fit one more distribution.

        Args:
            features: ``(n, D)``; a single one has no covariance but the jitter.

        Raises:
            ValueError: there are no features.
        """
        if not len(features):
            raise ValueError("no features to fit a distribution to")
        exact = features.to(self.means.device).double()
        mean = exact.mean(dim=0)
        centred = (exact - mean) / math.sqrt(max(1, len(exact) - 1))
        root = torch.linalg.qr(centred, mode="r").R
        self.means = torch.cat([self.means, mean[None].to(self.means)])
        self.roots = torch.cat([self.roots, root.to(self.roots)])
        self.sizes = torch.cat([self.sizes, self.sizes.new_tensor([len(root)])])

    def covariance(self, index: int) -> Tensor:
        """The covariance of one distribution, jitter included, ``(D, D)`` float64."""
        root = self._root(index).double()
        eye = torch.eye(root.shape[1], dtype=root.dtype, device=root.device)
        return root.T @ root + self.jitter * eye

    @torch.no_grad()
    def log_density(self, features: Tensor) -> Tensor:
        """``log p_k(x)`` of features ``(B, D)`` under every distribution, ``(B, K)`` float64."""
        x = features.double()
        columns = []
        for index, mean in enumerate(self.means.double()):
            lower = torch.linalg.cholesky(self.covariance(index))
            z = torch.linalg.solve_triangular(lower, (x - mean).T, upper=False)
            volume = lower.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
            columns.append(-0.5 * z.square().sum(dim=0) - volume)
        return torch.stack(columns, dim=1) if columns else x.new_zeros(len(x), 0)

    @torch.no_grad()
    def sample(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Draw features.

        Args:
            which: ``(M,)`` int64, from which distribution each is drawn.
            generator: on the CPU.

        Returns:
            ``(M, D)`` float32.
        """
        means = self.means[which]
        noise = torch.randn(means.shape, generator=generator).to(means)
        drawn = means + math.sqrt(self.jitter) * noise
        for index in which.unique().tolist():
            rows = (which == index).nonzero()[:, 0].to(means.device)
            root = self._root(index)
            noise = torch.randn(len(rows), len(root), generator=generator).to(root)
            drawn[rows] += noise @ root
        return drawn

    def _root(self, index: int) -> Tensor:
        start = int(self.sizes[:index].sum())
        return self.roots[start : start + int(self.sizes[index])]
