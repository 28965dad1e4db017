"""Conceptors: soft projections onto the directions that features use, and their algebra.

A conceptor (Jaeger 2014, https://arxiv.org/abs/1403.3369) is a symmetric matrix with eigenvalues in
[0, 1): near 1 along directions that features use, near 0 along all others. All functions compute in
the precision of what they are given; float64 is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from clbench.clip.growing import let_grow

NULL: Final = 1e-6
"""Eigenvalues up to this count as zero."""
BOUNDS: Final = (1e-8, 0.9999999)
"""Between which eigenvalues are kept, so that inverses exist."""


def conceptor(x: Tensor, aperture: float, threshold: float = 0.0, gain: float = 1.1) -> Tensor:
    """The conceptor of features, with as large an aperture as lets enough of them through.

    ``C = R (R + aperture^-2 I)^-1``, ``R = X X^T / N``; while ``sum_n |C x_n| / sum_n |x_n|`` is
    below the threshold, the aperture is multiplied by `gain`:
    ``C <- C (C + gain^-2 (I - C))^-1``.

    Args:
        x: ``(d, N)`` features X as columns.
        aperture: the first one.
        threshold: share of the features that passes at least, at most 0.999.
        gain: above 1.

    Returns:
        ``(d, d)``.
    """
    values, vectors = torch.linalg.eigh(x @ x.T / x.shape[1])
    values = values.clamp_min(0)
    values = values / (values + aperture**-2)
    squares, total = (vectors.T @ x).square(), x.norm(dim=0).sum()
    while (values.square() @ squares).sqrt().sum() < threshold * total:
        values = (values / (values + gain**-2 * (1 - values))).clamp(*BOUNDS)
    return _composed(values, vectors)


def complement(c: Tensor) -> Tensor:
    """What a conceptor leaves out: ``I - C``."""
    return torch.eye(len(c), dtype=c.dtype, device=c.device) - c


def both(c: Tensor, b: Tensor) -> Tensor:
    """The directions that two conceptors share, "C and B".

    ``W (W^T (C^+ + B^+ - I) W)^-1 W^T``, W being a basis of what both their ranges hold.
    """
    (c_null, c_inverse), (b_null, b_inverse) = _null_and_inverse(c), _null_and_inverse(b)
    values, vectors = torch.linalg.eigh(c_null @ c_null.T + b_null @ b_null.T)
    basis = vectors[:, values <= NULL]
    inner = basis.T @ (c_inverse + b_inverse) @ basis
    inner = inner - torch.eye(basis.shape[1], dtype=c.dtype, device=c.device)
    shared = basis @ torch.linalg.inv(inner) @ basis.T
    return with_eigenvalues((shared + shared.T) / 2, lambda values: values.clamp(*BOUNDS))


def either(c: Tensor, b: Tensor) -> Tensor:
    """The directions of two conceptors together, "C or B": ``not (not C and not B)``."""
    return complement(both(complement(c), complement(b)))


def floored(c: Tensor, bound: float) -> Tensor:
    """A conceptor without eigenvalues below a bound, which become zero."""
    return with_eigenvalues(c, lambda values: values.where(values >= bound, 0.0))


def capacity(c: Tensor) -> float:
    """The share of all directions that a conceptor takes: its mean eigenvalue."""
    return c.trace().item() / len(c)


def with_eigenvalues(c: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A symmetric matrix with other eigenvalues."""
    values, vectors = torch.linalg.eigh(c)
    return _composed(change(values), vectors)


class ConceptorMemory(nn.Module):
    """The conceptor of all features so far, part of the state."""

    conceptor: Tensor
    """C, ``(d, d)``; ``(0, 0)`` before there are features."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("conceptor", torch.zeros(0, 0))
        let_grow(self, "conceptor")

    @torch.no_grad()
    def outside(self, rows: Tensor) -> Tensor:
        """What of the rows ``(n, d)`` is not along used directions: ``G - G C``."""
        return rows - rows @ self.conceptor if len(self.conceptor) else rows

    def shared(self, new: Tensor) -> tuple[Tensor, float]:
        """Directions that other features use, too.

        Args:
            new: ``(d, d)``, their conceptor.

        Returns:
            "C and new", and what part of C's capacity this is.
        """
        memory = self.conceptor.to(new)
        common = both(memory, new)
        return common, capacity(common) / capacity(memory)

    def extend(self, new: Tensor, lower_bound: float) -> None:
        """Add the conceptor ``(d, d)`` of further features, and drop eigenvalues below a bound."""
        joint = either(self.conceptor.to(new), new) if len(self.conceptor) else new
        self.conceptor = floored(joint, lower_bound).to(self.conceptor)


def leading(c: Tensor, count: int) -> Tensor:
    """Eigenvectors ``(d, count)`` of the largest eigenvalues, all if there are fewer."""
    vectors: Tensor = torch.linalg.eigh(c)[1]
    return vectors.flip(1)[:, :count]


def _null_and_inverse(c: Tensor) -> tuple[Tensor, Tensor]:
    """A basis ``(d, n)`` of the directions that count as zero, and the inverse on all others."""
    values, vectors = torch.linalg.eigh(c)
    null = values <= NULL
    return vectors[:, null], _composed(values.reciprocal().where(~null, 0.0), vectors)


def _composed(values: Tensor, vectors: Tensor) -> Tensor:
    return (vectors * values) @ vectors.T
