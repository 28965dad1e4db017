"""Text features are computed once where they are constants, and anew whenever they could differ."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clbench.clip.lowrank import attach
from clbench.clip.model import CLIP
from clbench.core.task import ClassTexts

CLASSES = ClassTexts.from_templates(["cat", "fire truck"], ["a photo of a {}.", "the {}."])
TEXTS = ["a photo of a cat.", "a photo of a dog.", "a bird."]


@pytest.fixture
def clip(tiny_clip: CLIP) -> CLIP:
    return tiny_clip.requires_grad_(False).eval()


@pytest.fixture
def encoded(clip: CLIP, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of texts of every pass through the text encoder."""
    passes: list[int] = []
    encode = clip.encode_text

    def counting(tokens: Tensor) -> Tensor:
        passes.append(len(tokens))
        return encode(tokens)

    monkeypatch.setattr(clip, "encode_text", counting)
    return passes


def test_frozen_texts_are_encoded_once(clip: CLIP, encoded: list[int]) -> None:
    tokens = clip.tokenize(TEXTS)
    first = clip.text_features(tokens)
    torch.testing.assert_close(clip.text_features(tokens, torch.tensor([2, 0])), first[[2, 0]])
    assert encoded == [3]
    clip.text_features(tokens.clone())  # another tensor may hold other texts
    assert encoded == [3, 3]
    assert clip.class_features(CLASSES) is clip.class_features(CLASSES)
    assert encoded == [3, 3, 4]


def test_class_texts_are_tokenised_once_whatever_becomes_of_the_weights(
    clip: CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    tokenizer = clip.tokenizer

    def counting(texts: list[str]) -> Tensor:
        seen.append(len(texts))
        return tokenizer(texts)

    monkeypatch.setattr(clip, "tokenizer", counting)
    with torch.inference_mode():
        before = clip.class_features(CLASSES)
    in_place(clip)
    assert not torch.equal(clip.class_features(CLASSES), before)
    clip.requires_grad_(True)
    clip.class_features(CLASSES).square().sum().backward()  # ids from a test take part in training
    assert seen == [4]


def test_remembered_features_are_those_of_the_encoder(clip: CLIP) -> None:
    tokens = clip.tokenize(TEXTS)
    clip.text_features(tokens)
    torch.testing.assert_close(clip.text_features(tokens), clip.encode_text(tokens))


def in_place(clip: CLIP) -> None:
    clip.attention_linears("text")[0][1].weight.normal_()


def by_loading(clip: CLIP) -> None:
    state = {name: value + 0.1 for name, value in clip.state_dict().items()}
    clip.load_state_dict(state)


def by_data(clip: CLIP) -> None:
    weight = clip.network.text_projection
    weight.data = torch.randn_like(weight)


def by_another_module(clip: CLIP) -> None:
    name, layer = clip.attention_linears("text")[0]
    clip.replace(name, nn.Linear(layer.in_features, layer.out_features).requires_grad_(False))


def by_merging(clip: CLIP) -> None:
    for adapter in attach(clip, clip.attention_linears("text"), 2, 1.0, trained=()).values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
        adapter.merge()


CHANGES: list[Callable[[CLIP], None]] = [
    in_place,
    by_loading,
    by_data,
    by_another_module,
    by_merging,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@torch.no_grad()
def test_every_change_of_a_weight_is_noticed(clip: CLIP, change: Callable[[CLIP], None]) -> None:
    tokens = clip.tokenize(TEXTS)
    before = clip.class_features(CLASSES), clip.text_features(tokens)
    change(clip)
    after = clip.class_features(CLASSES), clip.text_features(tokens)
    for old, new in zip(before, after, strict=True):
        assert not torch.allclose(old, new, atol=1e-3)
    torch.testing.assert_close(after[1], clip.encode_text(tokens))


@torch.no_grad()
def test_a_change_that_pytorch_does_not_count_is_noticed_by_the_next_evaluation(
    clip: CLIP, encoded: list[int]
) -> None:
    with clip.frozen():
        before = clip.class_features(CLASSES)
    with clip.frozen():
        assert clip.class_features(CLASSES) is before
    clip.network.text_projection.data.neg_()
    with clip.frozen():
        torch.testing.assert_close(clip.class_features(CLASSES), -before)
    assert encoded == [4, 4]


@pytest.mark.parametrize("fused", [False, True])
def test_training_in_between_is_noticed(clip: CLIP, fused: bool) -> None:
    tokens = clip.tokenize(TEXTS)
    before = clip.text_features(tokens)
    clip.requires_grad_(True)
    trained = [p for p in clip.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, fused=fused)
    clip.text_features(tokens)[:, 0].sum().backward()
    optimizer.step()
    clip.requires_grad_(False)
    assert not torch.allclose(clip.text_features(tokens), before, atol=1e-3)


def test_a_trained_encoder_gets_gradients_in_every_step(clip: CLIP, encoded: list[int]) -> None:
    clip.requires_grad_(True)
    tokens = clip.tokenize(TEXTS)
    for _ in range(2):
        clip.text_features(tokens, torch.tensor([0, 2])).sum().backward()
    assert encoded == [2, 2]


class Switch(nn.Module):
    """A part that looks at something which is not a tensor."""

    sign = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.sign * x


def test_nothing_is_remembered_of_modules_from_elsewhere(clip: CLIP) -> None:
    switch = Switch()
    clip.replace("network.ln_final", switch)
    before = clip.class_features(CLASSES)
    switch.sign = -1.0
    torch.testing.assert_close(clip.class_features(CLASSES), -before)


def test_nothing_is_remembered_beside_hooks_and_dropout(clip: CLIP, encoded: list[int]) -> None:
    tokens = clip.tokenize(TEXTS)
    block = clip.blocks("text")[0]
    handle = block.register_forward_hook(lambda *_: None)
    clip.text_features(tokens)
    clip.text_features(tokens)
    handle.remove()
    for adapter in attach(clip, clip.attention_linears("text"), 2, 1.0, dropout=0.5).values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
    clip.requires_grad_(False).train()
    assert not torch.equal(clip.text_features(tokens), clip.text_features(tokens))
    assert encoded == [3] * 4


def test_precisions_are_kept_apart(clip: CLIP) -> None:
    tokens = clip.tokenize(TEXTS)
    single = clip.text_features(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        half = clip.text_features(tokens)
    assert 1e-5 < (single - half).abs().max() < 0.1
    assert torch.equal(clip.text_features(tokens), single)


def test_a_copy_remembers_nothing_of_the_original(clip: CLIP) -> None:
    tokens = clip.tokenize(TEXTS)
    clip.text_features(tokens)
    other = copy.deepcopy(clip)
    with torch.no_grad():
        in_place(other)
    assert not torch.allclose(other.text_features(tokens), clip.text_features(tokens), atol=1e-3)
