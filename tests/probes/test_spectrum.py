"""Spectra against weights whose singular values are known, and against projectors written out."""

from __future__ import annotations

import math

import pytest
import torch

from clbench.clip.model import CLIP
from clbench.clip.subspaces.directions import principal_rank, random_orthonormal
from clbench.probes.spectrum import (
    Decomposed,
    Spectrum,
    collected,
    mean_angle,
    principal_angles,
    ranks,
    relative_rank,
    shares,
)
from tests.probes.looks import make_look


def built(s: list[float], seed: int = 0, out: int = 8, size: int = 6) -> Decomposed:
    generator = torch.Generator().manual_seed(seed)
    u = random_orthonormal(out, len(s), generator)
    v = random_orthonormal(size, len(s), generator)
    values = torch.tensor(s, dtype=torch.float64)
    return Decomposed(u * values @ v.T, u, values, v.T, principal_rank(values, 0.95))


def test_ranks_of_known_singular_values() -> None:
    assert ranks(built([3.0, 1.0, 1.0, 0.1]))["principal_rank"] == 3 / 4
    assert ranks(built([1.0] * 4))["effective_rank"] == pytest.approx(1)
    assert ranks(built([1.0, 0.0, 0.0, 0.0]))["effective_rank"] == pytest.approx(1 / 4)
    half = math.exp(-2 * 0.5 * math.log(0.5)) / 4
    assert ranks(built([2.0, 2.0, 0.0, 0.0]))["effective_rank"] == pytest.approx(half)


def test_shares_are_those_of_projectors_written_out() -> None:
    before = built([5.0, 4.0, 0.3, 0.2])
    assert before.rank == 2
    generator = torch.Generator().manual_seed(3)
    update = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    left = before.u[:, :2] @ before.u[:, :2].T
    right = before.vh[:2].T @ before.vh[:2]
    total = update.norm() ** 2
    assert shares(update, before) == pytest.approx(
        {
            "inside_left": float((left @ update).norm() ** 2 / total),
            "inside_right": float((update @ right).norm() ** 2 / total),
            "inside_both": float((left @ update @ right).norm() ** 2 / total),
        }
    )
    assert shares(torch.zeros(8, 6), before) == {}


def test_updates_in_known_directions() -> None:
    before = built([5.0, 4.0, 0.3, 0.2])
    tail = before.u[:, 2:] @ before.vh[2:]
    mixed = torch.outer(before.u[:, 0], before.vh[3])
    assert shares(tail, before) == pytest.approx(dict.fromkeys(shares(tail, before), 0), abs=1e-12)
    expected = {"inside_left": 1, "inside_right": 0, "inside_both": 0}
    assert shares(mixed, before) == pytest.approx(expected, abs=1e-12)
    assert relative_rank(tail) == 2 / 6
    assert relative_rank(torch.zeros(3, 3)) is None


@pytest.mark.parametrize("degrees", [0.01, 30.0, 89.0])
def test_angles_of_a_rotated_plane(degrees: float) -> None:
    angle = math.radians(degrees)
    a = torch.eye(4, dtype=torch.float64)[:, :2]
    b = a.clone()
    b[:, 1] = torch.tensor([0, math.cos(angle), math.sin(angle), 0])
    assert principal_angles(a, b).tolist() == pytest.approx([0, degrees], abs=1e-5)
    before, today = built([2.0, 1.9, 0.1, 0.1]), built([2.0, 1.9, 0.1, 0.1])
    assert mean_angle(before, today) == pytest.approx(0, abs=1e-5)


def test_layers_are_averaged_and_named_by_encoder_and_block() -> None:
    found = {
        "network.visual.transformer.resblocks.1.attn.q_proj": {"angle": 4.0},
        "network.transformer.resblocks.0.mlp.c_fc": {"angle": 2.0, "inside_left": 0.5},
    }
    assert collected(found) == {
        "angle": 3.0,
        "angle/vision": 4.0,
        "angle/text": 2.0,
        "inside_left": 0.5,
        "inside_left/text": 0.5,
        "angle/vision.1.attn.q_proj": 4.0,
        "angle/text.0.mlp.c_fc": 2.0,
        "inside_left/text.0.mlp.c_fc": 0.5,
    }


def test_a_change_of_one_weight_is_found_there(tiny_clip: CLIP) -> None:
    probe = Spectrum()
    with torch.no_grad():
        probe.start(make_look(tiny_clip))
        first = probe.measure(make_look(tiny_clip))
        assert {"principal_rank", "effective_rank"} <= first.keys()
        assert "inside_both" not in first
        probe.before_task(make_look(tiny_clip))
        layer = tiny_clip.get_submodule("network.visual.transformer.resblocks.1.mlp.c_proj")
        u, _, vh = torch.linalg.svd(layer.weight, full_matrices=False)  # type: ignore[arg-type]
        layer.weight += 0.01 * torch.outer(u[:, -1], vh[-1])  # type: ignore[operator]
        found = probe.measure(make_look(tiny_clip, 1))
    assert found["inside_both"] == pytest.approx(0, abs=1e-6)
    assert found["update_rank"] == found["update_rank/vision.1.mlp.c_proj"] == 1 / len(u.T)
    assert [key for key in found if key.startswith("inside_left/")] == [
        "inside_left/vision",
        "inside_left/vision.1.mlp.c_proj",
    ]
    assert found["angle/text"] == pytest.approx(0, abs=1e-4)
