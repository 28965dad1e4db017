"""CLIP computes what open_clip's network computes and gives access to its parts."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.model import CHUNK, CLIP
from clbench.clip.tokenizer import Tokenizer
from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TEXTS = ["cat", "a photo of a cat.", "a much longer sentence about nothing in particular, really"]
CLASSES = ClassTexts(
    ("cat", "dog", "newt"),
    (("a cat", "the very same cat."), ("dog",), ("newt", "a newt.", "a small newt in water.")),
)


@pytest.fixture
def original() -> open_clip.CLIP:
    return open_clip.CLIP(24, VISION, TEXT).eval()


@pytest.fixture
def clip(original: open_clip.CLIP) -> CLIP:
    return CLIP(copy.deepcopy(original), Tokenizer(77), MEAN, STD, "tiny")


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)


@torch.no_grad()
def test_text_features_equal_those_of_the_whole_context(
    clip: CLIP, original: open_clip.CLIP
) -> None:
    full = open_clip.tokenize(TEXTS)
    trimmed = clip.tokenize(TEXTS)
    expected = original.encode_text(full, normalize=True)
    lengths = full.argmax(dim=1) + 1
    assert trimmed.shape == (len(TEXTS), lengths.max())
    torch.testing.assert_close(clip.encode_text(trimmed), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(clip.encode_text(full), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_text_features_equal_those_of_a_custom_text_network() -> None:
    network = open_clip.CustomTextCLIP(24, VISION, {**TEXT, "proj_bias": True}).eval()
    wrapped = CLIP(copy.deepcopy(network), Tokenizer(77), MEAN, STD, "tiny")
    expected = network.encode_text(open_clip.tokenize(TEXTS), normalize=True)
    actual = wrapped.encode_text(wrapped.tokenize(TEXTS))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert wrapped.attention_linears("text")[0][0].startswith("network.text.")
    exported = wrapped.export_state_dict()
    assert all(torch.equal(exported[name], value) for name, value in network.state_dict().items())


@torch.no_grad()
def test_image_features_equal_the_original_for_bytes_and_normalised_floats(
    clip: CLIP, original: open_clip.CLIP, images: Tensor
) -> None:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    normalised = (images / 255 - mean) / std
    before = images.clone()
    expected = original.encode_image(normalised, normalize=True)
    torch.testing.assert_close(clip.encode_image(images), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(clip.encode_image(normalised), expected, rtol=0, atol=1e-6)
    assert torch.equal(images, before)


@torch.no_grad()
def test_logits_are_scaled_cosines(clip: CLIP, original: open_clip.CLIP, images: Tensor) -> None:
    clip.logit_scale.fill_(3.0)
    features = F.normalize(torch.randn(4, 24), dim=-1)
    expected = torch.tensor(3.0).exp() * clip.encode_image(images) @ features.T
    torch.testing.assert_close(clip.logits(images, features), expected)


@torch.no_grad()
def test_logits_keep_full_precision_under_autocast(clip: CLIP, images: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = clip.class_features(CLASSES)
        logits = clip.logits(images, features)
        encoded = clip.encode_image(images)
    assert logits.dtype == features.dtype == torch.float32
    torch.testing.assert_close(logits, clip.logit_scale.exp() * encoded @ features.T)


@torch.no_grad()
def test_class_features_average_normalised_prompts(clip: CLIP, original: open_clip.CLIP) -> None:
    expected = []
    for prompts in CLASSES.prompts:
        each = original.encode_text(open_clip.tokenize(list(prompts)), normalize=True)
        expected.append(F.normalize(each.mean(dim=0), dim=0))
    actual = clip.class_features(CLASSES)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=1e-6)


@torch.no_grad()
def test_class_features_keep_the_order_of_classes_over_several_chunks(clip: CLIP) -> None:
    names = [f"{'very ' * (i % 3)}thing {i}" for i in range(CHUNK + 9)]
    many = ClassTexts.from_templates(names, ["a {}."])
    features = clip.class_features(many)
    for i in (0, 1, 2, CHUNK, CHUNK + 8):
        alone = clip.encode_text(clip.tokenize([f"a {names[i]}."]))
        torch.testing.assert_close(features[i : i + 1], alone, rtol=0, atol=1e-6)


def test_class_features_pass_gradients_to_the_text_encoder(clip: CLIP) -> None:
    clip.class_features(CLASSES)[:, 0].sum().backward()
    gradient = clip.attention_linears("text", layers=[0], projections=["q"])[0][1].weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_every_backward_pass_gets_its_own_graph(clip: CLIP) -> None:
    clip.class_features(CLASSES).sum().backward()
    clip.class_features(CLASSES).sum().backward()


def test_inference_tensors_are_not_mixed_into_training(clip: CLIP, images: Tensor) -> None:
    clip.requires_grad_(False)
    clip.network.visual.requires_grad_(True)
    with torch.inference_mode():
        clip.class_features(CLASSES)
    clip.logits(images, clip.class_features(CLASSES)).sum().backward()
    assert clip.network.visual.proj.grad is not None


@torch.no_grad()
def test_export_gives_back_every_weight_bit_for_bit(
    clip: CLIP, original: open_clip.CLIP, images: Tensor
) -> None:
    exported, expected = clip.export_state_dict(), original.state_dict()
    assert list(exported) == list(expected)
    assert all(torch.equal(exported[name], expected[name]) for name in expected)
    exported["visual.proj"].zero_()
    assert torch.equal(clip.network.visual.proj, original.visual.proj)


@pytest.mark.parametrize(
    "place",
    [
        "network.visual.transformer.resblocks.1.attn.v_proj",
        "network.visual.transformer.resblocks.0.mlp.c_fc",
    ],
)
def test_export_refuses_unmerged_adapters(clip: CLIP, place: str) -> None:
    layer = clip.get_submodule(place)
    clip.replace(place, nn.Sequential(layer, nn.Linear(4, 4)))
    with pytest.raises(ValueError, match=r"adapters.*resblocks|resblocks.*adapters"):
        clip.export_state_dict()
    clip.replace(place, layer)
    clip.export_state_dict()


def test_fingerprint_identifies_the_weights(clip: CLIP) -> None:
    copied = copy.deepcopy(clip)
    assert copied.fingerprint() == clip.fingerprint()
    with torch.no_grad():
        copied.network.visual.proj[0, 0] += 1e-6
    assert copied.fingerprint() != clip.fingerprint()
    assert len(clip.fingerprint()) == 64


def test_attention_linears_are_named_and_ordered(clip: CLIP) -> None:
    layers = clip.attention_linears()
    assert len(layers) == 4 * (2 + 3)
    assert [name for name, _ in layers][:5] == [
        "network.transformer.resblocks.0.attn.q_proj",
        "network.transformer.resblocks.0.attn.k_proj",
        "network.transformer.resblocks.0.attn.v_proj",
        "network.transformer.resblocks.0.attn.out_proj",
        "network.transformer.resblocks.1.attn.q_proj",
    ]
    assert layers[8][0] == "network.visual.transformer.resblocks.0.attn.q_proj"
    assert all(clip.get_submodule(name) is layer for name, layer in layers)


def test_attention_linears_can_be_chosen(clip: CLIP) -> None:
    chosen = clip.attention_linears("vision", layers={2}, projections=("o", "v"))
    stem = "network.visual.transformer.resblocks.2.attn."
    assert [name for name, _ in chosen] == [f"{stem}v_proj", f"{stem}out_proj"]
    both = clip.attention_linears(layers=[2], projections=["q"])
    assert [name for name, _ in both] == [f"{stem}q_proj"]
    assert clip.attention_linears(layers=[]) == []


def test_attention_linears_refuse_wrong_choices(clip: CLIP) -> None:
    with pytest.raises(ClbenchError, match="unknown projection 'out'"):
        clip.attention_linears(projections=["out"])
    with pytest.raises(ClbenchError, match="did you mean 'vision'"):
        clip.attention_linears("visoin")  # type: ignore[arg-type]
    with pytest.raises(ClbenchError, match="layer 2 does not exist: tiny has 2 layers"):
        clip.attention_linears("text", layers=[0, 2])
    name, layer = clip.attention_linears()[0]
    clip.replace(name, nn.Sequential(layer))
    with pytest.raises(ValueError, match="holds a Sequential"):
        clip.attention_linears()


@torch.no_grad()
def test_replaced_modules_take_part_in_the_forward_pass(clip: CLIP) -> None:
    tokens = clip.tokenize(TEXTS)
    before = clip.encode_text(tokens)
    for name, _ in clip.attention_linears("text", projections=["o"]):
        clip.replace(name, nn.Identity())
    assert not torch.allclose(clip.encode_text(tokens), before, atol=1e-3)
    with pytest.raises(AttributeError):
        clip.replace("network.transformer.resblocks.0.attn.x_proj", nn.Identity())


def test_blocks_are_those_of_the_encoder(clip: CLIP) -> None:
    assert clip.blocks("text") == list(clip.network.transformer.resblocks)
    assert clip.blocks("vision") == list(clip.network.visual.transformer.resblocks)


def test_logit_scale_never_trains(clip: CLIP) -> None:
    assert not clip.logit_scale.requires_grad
    assert [n for n, p in clip.named_parameters() if not p.requires_grad] == ["network.logit_scale"]
    clip.requires_grad_(False).requires_grad_(True)
    assert not clip.logit_scale.requires_grad


def test_attributes_describe_the_network(clip: CLIP) -> None:
    assert (clip.image_size, clip.context_length, clip.name) == (16, 77, "tiny")
    assert clip.device == torch.device("cpu")


def test_wrong_image_size_is_one_clear_line(clip: CLIP) -> None:
    with pytest.raises(ClbenchError, match="images are 32 x 32 but tiny takes 16 x 16"):
        clip.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("vision", "text", "reason"),
    [
        ({"layers": (1, 1, 1, 1), "image_size": 64, "width": 16}, {}, "image encoder has no"),
        ({"image_size": (16, 32)}, {}, "not square"),
        ({}, {"no_causal_mask": True}, "text encoder"),
        ({}, {"pool_type": "last"}, "text encoder"),
        ({"qk_norm": True}, {}, "image encoder has no"),
    ],
)
def test_other_architectures_are_refused(
    vision: dict[str, object], text: dict[str, object], reason: str
) -> None:
    network = open_clip.CustomTextCLIP(24, {**VISION, **vision}, {**TEXT, **text})
    with pytest.raises(ClbenchError, match=f"odd is not a ViT CLIP: .*{reason}"):
        CLIP(network, Tokenizer(77), MEAN, STD, "odd")
