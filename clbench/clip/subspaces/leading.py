"""The leading eigenvectors of a Gram matrix in float64, mostly computed in float32.

A full float64 `eigh` spends its time on directions that nobody asks for. Here float32 gives all of
them to about 1e-6, and only the leading ones are made exact: each is corrected by what the matrix,
in float64, couples it with (first-order perturbation theory), and directions whose eigenvalues
lie so close that float32 has mixed them are told apart by a small float64 eigenproblem
(Rayleigh-Ritz). A bound on what is still missing decides whether the result is used.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

GAP: Final = 1e-4
"""Share of the largest eigenvalue by which the corrected directions are set off from the rest."""
TOLERANCE: Final = 1e-7
"""Largest angle, in radians, between the result and the true subspace: float32's rounding."""
PASSES: Final = 4
LARGEST: Final = 1 / 3
"""Share of all directions up to which this is cheaper than a full `eigh`."""


def leading_subspace(gram: Tensor, rho: float) -> Tensor | None:
    """Leading eigenvectors, as many as leave less than a share of the energy.

    Args:
        gram: ``(d, d)`` symmetric, positive semi-definite, float64.
        rho: share of the energy that may remain outside.

    Returns:
        ``(d, k)`` orthonormal, float64; None where k is too large for this to be worth it, or
        where the eigenvalues do not allow the accuracy.
    """
    values, vectors = torch.linalg.eigh(gram.float())
    values, vectors = values.flip(0).double(), vectors.flip(1).double()
    k = kept_directions(values, gram.trace(), rho)
    far = (values < values[max(k - 1, 0)] - GAP * values[0]).nonzero()
    width = max(int(far[0]), k + 8) if len(far) else len(gram)
    if not values[0] > 0 or width > LARGEST * len(gram):
        return None
    basis, rest, below = vectors[:, :width], vectors[:, width:], values[width:]
    for _ in range(PASSES):
        basis, image, energies = _rayleigh_ritz(gram, basis)
        k = kept_directions(energies, gram.trace(), rho)
        if not 0 < k < width:
            return None
        residual = image - basis * energies
        distance = energies[k - 1] - below[0]
        if residual[:, :k].norm() <= TOLERANCE * distance:
            return basis[:, :k]
        basis = basis + rest @ _correction(rest.T @ residual, energies, below)
    return None


def kept_directions(energies: Tensor, total: Tensor, rho: float) -> int:
    """Smallest k such that the directions from k on hold less than a share of the energy.

    Args:
        energies: largest first, all of them or the first few.
        total: sum of all energies.
        rho: the share, in (0, 1].
    """
    before = torch.cat([energies.new_zeros(1), energies.cumsum(0)[:-1]])
    return int((total - before >= rho * total).sum())


def _rayleigh_ritz(gram: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best approximations of eigenvectors within a span: vectors, images, values."""
    basis, _ = torch.linalg.qr(basis)
    image = gram @ basis
    values, rotation = torch.linalg.eigh(basis.T @ image)
    rotation = rotation.flip(1)
    return basis @ rotation, image @ rotation, values.flip(0)


def _correction(coupling: Tensor, energies: Tensor, below: Tensor) -> Tensor:
    """Shares of the rest that are missing in each direction; none where float32 cannot tell."""
    distance = energies[None, :] - below[:, None]
    allowed = distance >= GAP / 2 * energies[0]
    return torch.where(allowed, coupling / distance.where(allowed, distance.new_ones(())), 0.0)
