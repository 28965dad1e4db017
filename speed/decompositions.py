"""Null spaces of Gram matrices and of weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.clip.subspaces.directions import FeatureSplit, gram_null_bases, thin_svds
from speed import plain
from speed.machine import alternate, ratio, seconds

RHO = 0.15


def gram_decompositions(grams: list[Tensor], repeats: int) -> dict[str, Any]:
    """GNSP's null spaces from its Gram matrices: full SVD and dense projector, or shipped.

    The plain form is timed on two matrices of each width, one after the other, and counted for
    all; the shipped form on all.
    """
    device = grams[0].device
    widths = sorted({len(gram) for gram in grams})
    counts = {width: sum(len(gram) == width for gram in grams) for width in widths}
    samples = {width: [gram for gram in grams if len(gram) == width][:2] for width in widths}
    slow: list[float] = []
    eigh: list[float] = []
    fast: list[float] = []
    for _ in range(repeats):
        slow.append(_projected_time(plain_projector, samples, counts, device))
        eigh.append(_projected_time(float64_eigh, samples, counts, device))
        fast.append(seconds(lambda: gram_null_bases(grams, RHO), device))
    splits = gram_null_bases(grams, RHO)
    differences = [
        _difference(grams[i], splits[i])
        for width in widths
        for i in [next(i for i, gram in enumerate(grams) if len(gram) == width)]
    ]
    return {
        "matrices": {str(width): count for width, count in counts.items()},
        "plain_seconds": slow,
        "eigh_float64_seconds": eigh,
        "shipped_seconds": fast,
        "ratio": ratio(slow, fast),
        "kept_directions": [_kept(split, len(g)) for split, g in zip(splits, grams, strict=True)],
        "largest_difference": max(differences),
    }


def plain_projector(gram: Tensor) -> object:
    """The published way."""
    return plain.null_projector(gram, RHO)


def float64_eigh(gram: Tensor) -> object:
    """The obvious shortcut without loss of small directions."""
    return torch.linalg.eigh(gram.double())


def _projected_time(
    decompose: Callable[[Tensor], object],
    samples: dict[int, list[Tensor]],
    counts: dict[int, int],
    device: torch.device,
) -> float:
    """Time for all matrices, from the mean over the samples of each width."""
    return sum(
        counts[width]
        * statistics.mean(seconds(partial(decompose, gram), device) for gram in matrices)
        for width, matrices in samples.items()
    )


def _kept(split: FeatureSplit, width: int) -> int:
    thin = split.thin.shape[1]
    return thin if split.holds_kept else width - thin


def _difference(gram: Tensor, split: FeatureSplit) -> float:
    """Frobenius norm of the part of the kept directions that float64's `eigh` does not find."""
    count = _kept(split, len(gram))
    exact = torch.linalg.eigh(gram.double()).eigenvectors[:, len(gram) - count :]
    kept = split.kept.double()
    return float((kept - exact @ (exact.T @ kept)).norm())


def weight_decompositions(model: CLIP, repeats: int) -> dict[str, Any]:
    """SVDs of all attention weights, which NuSA-CL and MiLoRA take once per task."""
    weights = [layer.weight for _, layer in model.attention_linears()]
    slow, fast = alternate(
        [
            lambda: [torch.linalg.svd(w.detach(), full_matrices=False) for w in weights],
            lambda: thin_svds(weights),
        ],
        repeats,
        model.device,
        warmup=0,
    )
    return {
        "weights": len(weights),
        "widths": sorted({w.shape[0] for w in weights}),
        "plain_seconds": slow,
        "shipped_seconds": fast,
        "ratio": ratio(slow, fast),
    }
