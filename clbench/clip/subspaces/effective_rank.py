"""Effective rank of a model's attention: how many directions its weights use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.adapters.singular import SingularLinear
from clbench.clip.layers.attention import PROJECTIONS
from clbench.clip.model import CLIP, Encoder
from clbench.clip.subspaces.directions import principal_rank

ENERGY = 0.95
"""Share of a weight's energy that its principal directions hold, as in NuSA-CL."""


@torch.no_grad()
def effective_rank(model: CLIP, encoder: Encoder, energy: float = ENERGY) -> float | None:
    """Mean share of singular directions that hold a share of the energy of an attention weight.

    ``mean over W of k*(W) / min(out, in)``, ``k* = min{k : sum_{i<=k} s_i^2 / sum s_i^2 >=
    energy}``, over the query, key, value and output projections of all blocks. Updates not
    yet merged count.

    Args:
        model: the model, with or without adapters.
        encoder: whose blocks are looked at.
        energy: the share, in (0, 1].

    Returns:
        A fraction in (0, 1]; None if a projection is a module whose weight is not known or not
        finite.
    """
    shares = []
    for block in model.blocks(encoder):
        for name in PROJECTIONS.values():
            weight = weight_of(block.attn.get_submodule(name))  # type: ignore[union-attr]
            if weight is None or not weight.isfinite().all():
                return None
            shares.append(_principal_share(weight, energy))
    return sum(shares) / len(shares)


def _principal_share(weight: Tensor, energy: float) -> float:
    """The squared singular values are eigenvalues of ``W W^T``, which come cheaper than an SVD."""
    short = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    squares = torch.linalg.eigvalsh(short @ short.T).clamp_min(0).flip(0)
    return principal_rank(squares.sqrt(), energy) / len(squares)


def weight_of(layer: nn.Module) -> Tensor | None:
    """The matrix that a layer applies; None for a module of unknown kind."""
    if isinstance(layer, LowRankLinear | SingularLinear):
        weight = layer.base.weight.double()
        return weight + layer.delta() if layer.active else weight
    return layer.weight if isinstance(layer, nn.Linear) else None
