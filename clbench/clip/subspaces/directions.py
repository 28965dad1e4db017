"""Subspaces of weights and features: principal ranks, null spaces, projections.

Weights are decomposed in float32 unless asked for otherwise, as in the published experiments: the
basis is orthonormal and its tail orthogonal to the principal part to about 1e-6, the precision that
an update added to a float32 weight has anyway. Gram matrices square the singular values of the
features, so half of their digits would be lost; they are decomposed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from clbench.clip.subspaces.leading import kept_directions, leading_subspace
from clbench.clip.subspaces.parallel import decompose_each

MIXED_FROM: Final = 512
"""Size from which a Gram matrix is worth decomposing in two precisions."""
Space = Literal["tail", "top", "random"]


class SVD(NamedTuple):
    """``W = U diag(s) V^T`` with descending singular values.

    Attributes:
        u: ``(out, d)``, d the smaller side.
        s: ``(d,)``.
        vh: ``(d, in)``.
    """

    u: Tensor
    s: Tensor
    vh: Tensor


class NullFactors(NamedTuple):
    """Directions in which a weight may be changed.

    Attributes:
        u: ``(out, rank)`` output directions, orthonormal columns followed by zero columns.
        v: ``(in, rank)`` input directions, likewise.
        principal_rank: number of singular directions that hold the asked share of the energy.
        used: number of columns that are not zero.
    """

    u: Tensor
    v: Tensor
    principal_rank: int
    used: int


@dataclass(frozen=True, eq=False)
class FeatureSplit:
    """Feature space cut in two: directions that carry the features, and the null space.

    Attributes:
        thin: ``(d, m)`` orthonormal basis of the part with fewer directions.
        holds_kept: whether that part is the one that carries the features.
    """

    thin: Tensor
    holds_kept: bool

    @property
    def kept(self) -> Tensor:
        """``(d, k)`` directions that carry the features."""
        return self.thin if self.holds_kept else complement(self.thin)

    @property
    def null(self) -> Tensor:
        """``(d, d - k)`` directions that carry next to nothing of them."""
        return complement(self.thin) if self.holds_kept else self.thin


def complement(basis: Tensor) -> Tensor:
    """An orthonormal basis ``(d, d - m)`` of what is orthogonal to ``(d, m)`` columns."""
    whole: Tensor = torch.linalg.qr(basis.double(), mode="complete")[0]
    return whole[:, basis.shape[1] :].to(basis.dtype)


def principal_rank(singular_values: Tensor, rho: float) -> int:
    """Smallest number of singular directions that hold a share of the energy.

    ``k* = min{k : sum_{i<=k} s_i^2 / sum_i s_i^2 >= rho}``.

    Args:
        singular_values: in descending order.
        rho: share of the energy, in (0, 1].

    >>> principal_rank(torch.tensor([3.0, 1.0, 1.0]), 0.8)  # 9 / 11, then 10 / 11
    1
    >>> principal_rank(torch.tensor([3.0, 1.0, 1.0]), 0.9)
    2
    """
    energy = singular_values.double().square().cumsum(0)
    return int((energy < rho * energy[-1]).sum()) + 1


def thin_svds(weights: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> list[SVD]:
    """The singular value decompositions of several weights, in the given precision."""
    return decompose_each(lambda weight: _thin_svd(weight, dtype), weights)


def _thin_svd(weight: Tensor, dtype: torch.dtype = torch.float32) -> SVD:
    return SVD(*torch.linalg.svd(weight.detach().to(dtype), full_matrices=False))


def null_factors(
    weight: Tensor,
    rank: int,
    rho: float,
    space: Space = "tail",
    generator: torch.Generator | None = None,
    svd: SVD | None = None,
) -> NullFactors:
    """Singular directions of a weight outside its principal subspace.

    With ``W = U S V^T`` of ``d = min(out, in)`` singular values and principal rank ``k*``, the
    last ``min(rank, d - k*)`` columns of U and V: the *smallest* directions, not those just below
    the cut. All three spaces use the same number of directions, so that they differ in place only.

    Args:
        weight: ``(out, in)``.
        rank: number of columns of the factors; missing directions are zero columns.
        rho: share of the energy that counts as principal.
        space: ``tail`` takes the smallest singular directions, ``top`` the largest, ``random``
            directions that have nothing to do with the weight.
        generator: source of the random directions.
        svd: the decomposition of the weight, where it is known.
    """
    u, s, vh = svd or _thin_svd(weight)
    principal = principal_rank(s, rho)
    used = min(rank, len(s) - principal)
    if space == "random":
        u = random_orthonormal(weight.shape[0], used, generator)
        v = random_orthonormal(weight.shape[1], used, generator)
    else:
        chosen = slice(0, used) if space == "top" else slice(len(s) - used, len(s))
        u, v = u[:, chosen], vh[chosen].T
    return NullFactors(_padded(u, rank, weight), _padded(v, rank, weight), principal, used)


def minor_components(weight: Tensor, rank: int, svd: SVD | None = None) -> tuple[Tensor, Tensor]:
    """The smallest singular components of a weight as two balanced factors.

    Args:
        weight: ``(out, in)``.
        rank: number of components.
        svd: the decomposition of the weight, where it is known.

    Returns:
        ``U_r sqrt(S_r)``, ``(out, rank)``, and ``sqrt(S_r) V_r^T``, ``(rank, in)``; their product
        is the part of the weight with the `rank` smallest singular values. A weight with fewer
        singular values gives zero columns and rows.
    """
    u, s, vh = svd or _thin_svd(weight)
    root = s[-rank:].sqrt()
    up = _padded(u[:, -rank:] * root, rank, weight)
    down = _padded(vh[-rank:].T * root, rank, weight).T
    return up, down.contiguous()


def random_orthonormal(dim: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniformly random orthonormal columns, ``(dim, count)``, in float64 on the CPU."""
    gaussian = torch.randn(dim, count, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    columns: Tensor = q * r.diagonal().sign()  # without the signs QR does not sample uniformly
    return columns


def gram_null_basis(gram: Tensor, rho: float) -> FeatureSplit:
    """Split feature space at the point below which a share of the energy lies.

    With the eigenvalues ``s`` of the Gram matrix in descending order, k is the smallest index
    (from 0) with ``sum_{i>=k} s_i / sum_i s_i < rho``; the null space is spanned by the
    eigenvectors from k on. The matrix is symmetric, so `eigh` gives what an SVD would, faster
    and with exactly orthogonal vectors. Of large matrices, only the leading directions are
    brought to float64 where that suffices (`leading_subspace`).

    Args:
        gram: ``(d, d)`` sum of ``X^T X`` over feature matrices X.
        rho: share of the energy that may remain in the null space, in (0, 1].
    """
    exact = gram.double()
    kept = leading_subspace(exact, rho) if len(gram) >= MIXED_FROM else None
    if kept is not None:
        return FeatureSplit(kept.to(gram.dtype), holds_kept=True)
    values, vectors = torch.linalg.eigh(exact)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).to(gram.dtype)
    # A memory without any energy protects nothing: everything is null space.
    k = kept_directions(values, values.sum(), rho) if values[0] > 0 else 0
    if k <= len(gram) - k:
        return FeatureSplit(vectors[:, :k].contiguous(), holds_kept=True)
    return FeatureSplit(vectors[:, k:].contiguous(), holds_kept=False)


def gram_null_bases(grams: Sequence[Tensor], rho: float) -> list[FeatureSplit]:
    """`gram_null_basis` of several matrices."""
    return decompose_each(lambda gram: gram_null_basis(gram, rho), grams)


def project(x: Tensor, split: FeatureSplit) -> Tensor:
    """Project the rows of a matrix onto the null space: ``x N N^T`` or ``x - x K K^T``.

    The basis of the part with fewer directions is used, and no ``d x d`` projector is ever built.

    Args:
        x: ``(n, d)``.
        split: kept and null directions of the d-dimensional space.
    """
    along = (x @ split.thin) @ split.thin.T
    return x - along if split.holds_kept else along


def _padded(columns: Tensor, count: int, like: Tensor) -> Tensor:
    """The columns followed by zero columns, in the dtype and on the device of another tensor."""
    padded = like.new_zeros(columns.shape[0], count)
    padded[:, : columns.shape[1]] = columns
    return padded
