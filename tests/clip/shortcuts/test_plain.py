"""Shortcuts that are switched off leave what is computed as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clbench.clip.adapters.attach import attach
from clbench.clip.layers.dropout import Dropout
from clbench.clip.model import CLIP
from clbench.core.plain import VARIABLE
from clbench.testing.toys import make_clip


def features_and_gradients(clip: CLIP) -> list[Tensor]:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    features = clip.logits(images, clip.encode_text(clip.tokenize(["a cat.", "a dog."])))
    trained = [p for p in clip.parameters() if p.requires_grad]
    return [features, *torch.autograd.grad(features.square().sum(), trained, allow_unused=True)]


def adapted() -> CLIP:
    clip = make_clip().requires_grad_(False).train()
    generator = torch.Generator().manual_seed(0)
    for adapter in attach(clip, clip.attention_linears(), 3, 0.5, core=True).values():
        adapter.set_factors(
            down=torch.randn(adapter.down.shape, generator=generator),
            up=torch.randn(adapter.up.shape, generator=generator),
            core=torch.randn(3, 3, generator=generator),
        )
    return clip


def test_the_plain_form_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = features_and_gradients(adapted())
    monkeypatch.setenv(VARIABLE, "lowrank_product")
    torch.testing.assert_close(features_and_gradients(adapted()), shipped, atol=2e-3, rtol=1e-3)


def test_plain_dropout_draws_pytorchs_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "dropout")
    x = torch.ones(40, 50)
    torch.manual_seed(0)
    dropped = Dropout(0.25).train()(x)
    torch.manual_seed(0)
    kept = torch.rand(x.shape) >= 0.25
    torch.testing.assert_close(dropped, kept / 0.75)
