"""Effective rank: hand-made spectra, adapters merged or not, what cannot be known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clbench.clip.adapters.attach import attach
from clbench.clip.model import CLIP
from clbench.clip.subspaces.directions import null_factors, random_orthonormal
from clbench.clip.subspaces.effective_rank import ENERGY, effective_rank


def give_spectrum(layer: nn.Linear, values: list[float]) -> None:
    """A weight with these singular values, the others zero."""
    d, k = len(layer.weight), len(values)
    u, v = random_orthonormal(d, k), random_orthonormal(d, k)
    layer.weight.data = ((u * torch.tensor(values, dtype=torch.float64)) @ v.T).float()


def test_it_is_the_mean_share_of_principal_directions(tiny_clip: CLIP) -> None:
    layers = [layer for _, layer in tiny_clip.attention_linears("vision")]
    for layer in layers:
        give_spectrum(layer, [4.0, 3.0, 2.0, 1.0])  # energies 16, 9, 4, 1 of 30
    d = len(layers[0].weight)
    assert effective_rank(tiny_clip, "vision", 0.8) == pytest.approx(2 / d)
    assert effective_rank(tiny_clip, "vision") == pytest.approx(3 / d)  # 29 / 30 >= 0.95
    give_spectrum(layers[0], [1.0])
    expected = (3 * (len(layers) - 1) + 1) / len(layers) / d
    assert effective_rank(tiny_clip, "vision") == pytest.approx(expected)


def test_it_is_what_nusa_finds_principal(tiny_clip: CLIP) -> None:
    ranks = [
        null_factors(layer.weight, 4, ENERGY).principal_rank / len(layer.weight)
        for _, layer in tiny_clip.attention_linears("text")
    ]
    assert effective_rank(tiny_clip, "text") == pytest.approx(sum(ranks) / len(ranks))


def test_encoders_are_measured_apart(tiny_clip: CLIP) -> None:
    before = effective_rank(tiny_clip, "text")
    for _, layer in tiny_clip.attention_linears("vision"):
        give_spectrum(layer, [1.0])
    assert effective_rank(tiny_clip, "text") == before
    assert effective_rank(tiny_clip, "vision") != before


def test_an_update_counts_before_and_after_it_is_merged(tiny_clip: CLIP) -> None:
    for _, layer in tiny_clip.attention_linears("vision"):
        give_spectrum(layer, [1.0])
    adapters = attach(tiny_clip, tiny_clip.attention_linears("vision"), rank=2, scale=1.0)
    d = len(next(iter(adapters.values())).base.weight)
    assert effective_rank(tiny_clip, "vision") == pytest.approx(1 / d)
    for adapter in adapters.values():
        directions = random_orthonormal(d, 2)
        adapter.set_factors(down=directions.T, up=directions)
    unmerged = effective_rank(tiny_clip, "vision")
    assert unmerged == pytest.approx(3 / d)
    for adapter in adapters.values():
        adapter.merge()
    assert effective_rank(tiny_clip, "vision") == unmerged


def test_what_cannot_be_known_is_none(tiny_clip: CLIP) -> None:
    name, layer = tiny_clip.attention_linears("vision")[0]
    layer.weight.data[0, 0] = torch.nan
    assert effective_rank(tiny_clip, "vision") is None
    tiny_clip.replace(name, nn.Sequential(layer))
    assert effective_rank(tiny_clip, "vision") is None
    assert effective_rank(tiny_clip, "text") is not None
