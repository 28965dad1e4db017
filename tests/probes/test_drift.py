"""Drift against products written out, CKA against the similarities of pairs of images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clbench.clip.model import CLIP
from clbench.core.probe import GeneralSet, ProbeData
from clbench.probes.drift import SAMPLES, Drift, linear_cka, observed
from tests.probes.looks import make_look, toy_benchmark

LAYER = "network.visual.transformer.resblocks.0.mlp.c_fc"


def test_cka_is_that_of_similarities_between_images() -> None:
    """The definition by Gram matrices over images (HSIC), with the centring matrix written out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(9, 5, generator=generator, dtype=torch.float64) + x[:, :1]
    h = torch.eye(9, dtype=torch.float64) - 1 / 9
    k, g = h @ x @ x.T @ h, h @ y @ y.T @ h
    expected = (k * g).sum() / (k.norm() * g.norm())
    assert linear_cka(x, y) == pytest.approx(float(expected))


def test_rotated_and_scaled_features_are_the_same() -> None:
    x = torch.randn(20, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert linear_cka(x, torch.randn(20, 6, dtype=torch.float64)) < 0.8


def test_layers_are_seen_with_the_inputs_that_images_cause(tiny_clip: CLIP) -> None:
    benchmark, sets = toy_benchmark(1)
    inputs = []
    layer = tiny_clip.get_submodule(LAYER)
    with torch.no_grad():
        hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        tiny_clip.encode_image(sets[0].images)
        hook.remove()
        look = make_look(tiny_clip, benchmark=benchmark, test_sets=sets)
        x, y = observed(look, [LAYER], sets, [benchmark.tasks[0].classes])[LAYER]
        rows = inputs[0].flatten(0, 1)
        assert len(sets[0]) <= SAMPLES
        assert all((rows == row).all(1).any() for row in x), "each is one of the layer's inputs"
        torch.testing.assert_close(y, layer(x))


def test_a_change_is_measured_on_earlier_unseen_and_general_inputs(tiny_clip: CLIP) -> None:
    benchmark, sets = toy_benchmark()
    shown, pictures = toy_benchmark(4)
    general = GeneralSet("other", shown.tasks[3].classes, pictures[3])

    def look(learned: int):
        data = ProbeData(general=(general,))
        return make_look(tiny_clip, learned, benchmark=benchmark, test_sets=sets, data=data)

    layer = tiny_clip.get_submodule(LAYER)
    assert isinstance(layer, nn.Linear)
    groups = {"earlier": [sets[0]], "unseen": [sets[2]], "general": [pictures[3]]}
    classes = {"earlier": 0, "unseen": 2, "general": 3}
    probe = Drift()
    with torch.no_grad():
        probe.start(look(0))
        first = probe.measure(look(0))
        assert first["cka_unseen"] == pytest.approx(1)
        assert "cka_earlier" not in first
        assert "earlier" not in first
        probe.before_task(look(1))
        expected = {}
        change = 0.1 * torch.randn(layer.weight.shape)
        for group, images in groups.items():
            texts = [shown.tasks[classes[group]].classes]
            x, y = observed(look(1), [LAYER], images, texts)[LAYER]
            expected[group] = float((x @ change.T).norm() / y.norm())
        layer.weight += change
        found = probe.measure(look(2))
    for group, value in expected.items():
        assert found[f"{group}/vision.0.mlp.c_fc"] == pytest.approx(value, rel=1e-4)
        assert found[f"{group}/text"] == 0
        assert found[f"{group}/vision.0.attn.q_proj"] == 0
        assert found[f"cka_{group}"] < 1
    layers = sum(1 for key in found if key.startswith("earlier/")) - 2
    assert found["earlier"] == pytest.approx(expected["earlier"] / layers, rel=1e-4)
