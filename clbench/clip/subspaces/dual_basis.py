"""Directions that features use, as an orthonormal basis that grows from task to task.

Gradient projection memory (Saha et al. 2021, https://arxiv.org/abs/2103.09762) keeps a basis of
what is used; DualGPM (Liang and Li 2023, https://arxiv.org/abs/2303.17783) keeps one of what is
unused as soon as that is smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clbench.clip.growing import let_grow
from clbench.clip.subspaces.directions import complement


def grown_basis(
    basis: Tensor, features: Tensor, threshold: float, *, at_first_below: bool = False
) -> Tensor:
    """A basis with as many new directions as hold a share of the features' energy with the old.

    With ``R = X - M M^T X = U diag(s) V^T``, the first k columns of U are appended, k being the
    smallest number with ``(|X|^2 - |R|^2 + sum_{i<=k} s_i^2) / |X|^2 >= threshold``.

    Args:
        basis: ``(d, m)`` orthonormal columns M, none for the first features.
        features: ``(d, n)`` X, or their covariance.
        threshold: share of the energy, in [0, 1].
        at_first_below: take for the first features the largest number, but at least one, whose
            share is *below* the threshold, as released code of several methods does.

    >>> x = torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.0]))
    >>> [grown_basis(torch.zeros(4, 0), x, share).shape[1] for share in (0.8, 0.9, 1.0)]
    [1, 2, 3]
    >>> grown_basis(torch.zeros(4, 0), x, 0.9, at_first_below=True).shape[1]
    1
    """
    x, kept = features.double(), basis.double()
    u, s, _ = torch.linalg.svd(x - kept @ (kept.T @ x), full_matrices=False)
    shares = s.square() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    if at_first_below and not basis.shape[1]:
        count = max(1, int((shares.cumsum(0) < threshold).sum()))
    else:
        before = 1 - shares.sum() + shares.cumsum(0) - shares
        # What is left over by rounding is no direction.
        count = int(((before < threshold) & (shares > torch.finfo(x.dtype).eps)).sum())
    return torch.cat([basis, u[:, : min(count, len(x) - basis.shape[1])].to(basis)], dim=1)


def shrunk_basis(basis: Tensor, features: Tensor, threshold: float) -> Tensor:
    """A basis of unused directions without those that features have begun to use.

    With ``R = F F^T X = U diag(s) V^T``, the first r columns of U are taken out of the span, r
    being the smallest number that leaves less than a share ``1 - threshold`` of ``|X|^2``.

    Args:
        basis: ``(d, m)`` orthonormal columns F.
        features: ``(d, n)`` X, or their covariance.
        threshold: share of the energy that the used directions must hold.
    """
    x, unused = features.double(), basis.double()
    u, s, _ = torch.linalg.svd(unused @ (unused.T @ x), full_matrices=False)
    shares = s.square() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    left = shares.sum() - shares.cumsum(0) + shares
    count = min(int((left >= max(1 - threshold, torch.finfo(x.dtype).eps)).sum()), basis.shape[1])
    if not count:
        return basis
    used = u[:, :count]
    rest: Tensor = torch.linalg.svd(unused - used @ (used.T @ unused), full_matrices=False)[0]
    return rest[:, : basis.shape[1] - count].to(basis)


class DualBasis(nn.Module):
    """The directions that a layer's features use, kept as a basis of them or of all others.

    Args:
        dim: size d of features.
        dual: change over to the unused directions when more than half are used, for good.
        at_first_below: see `grown_basis`.
    """

    basis: Tensor
    """``(d, m)`` orthonormal columns."""
    unused: Tensor
    """Whether they span what is *not* used, ``()`` bool."""

    def __init__(self, dim: int, *, dual: bool = True, at_first_below: bool = False) -> None:
        super().__init__()
        self.dual, self.at_first_below = dual, at_first_below
        self.register_buffer("basis", torch.zeros(dim, 0))
        self.register_buffer("unused", torch.zeros((), dtype=torch.bool))
        let_grow(self, "basis")

    def outside(self, columns: Tensor) -> Tensor:
        """The part of columns ``(d, n)`` in unused directions."""
        basis = self.basis.to(columns.dtype)
        along = basis @ (basis.T @ columns)
        return along if self.unused else columns - along

    def extend(self, features: Tensor, threshold: float) -> None:
        """Count as used what holds a share of the energy of features ``(d, n)``."""
        if self.unused:
            self.basis = shrunk_basis(self.basis, features, threshold)
            return
        self.basis = grown_basis(
            self.basis, features, threshold, at_first_below=self.at_first_below
        )
        if self.dual and 2 * self.basis.shape[1] > len(self.basis):
            self.basis = complement(self.basis)
            self.unused.fill_(True)
