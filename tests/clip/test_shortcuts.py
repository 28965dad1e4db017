"""Passes through the encoders that leave work out give what the whole passes give."""

from collections.abc import Iterator

import open_clip
import pytest
import torch
from torch import Tensor, nn

from clbench.clip.activation import QuickGELU
from clbench.clip.known_features import LIMIT, KnownFeatures
from clbench.clip.last_block import can_be_cut, reads_class_token_only, run_to_tokens
from clbench.clip.lowrank import attach
from clbench.clip.model import CLIP
from clbench.clip.reference import Reference
from clbench.core.data import ReferencePairs
from tests.methods.contract import saved


def test_quick_gelu_and_its_gradient_are_open_clips():
    x = torch.linspace(-8, 8, 401, dtype=torch.float64, requires_grad=True)
    actual, expected = QuickGELU()(x), open_clip.transformer.QuickGELU()(x)
    torch.testing.assert_close(actual, expected)
    gradient = torch.randn_like(x)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x, gradient)[0] for y in (actual, expected))
    )


def test_quick_gelu_keeps_its_input_only_and_leaves_it_alone():
    kept: list[Tensor] = []
    x = torch.randn(5, requires_grad=True)
    before = x.detach().clone()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        QuickGELU()(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    assert torch.equal(x, before)


def as_cut_and_as_whole(clip: CLIP) -> Iterator[CLIP]:
    """A CLIP that cuts its last blocks short, then the same kept from it."""
    transformers = [clip.network.visual.transformer, clip.network.transformer]
    assert all(can_be_cut(transformer) for transformer in transformers)
    yield clip
    for encoder in ("vision", "text"):
        clip.blocks(encoder)[-1].register_forward_hook(lambda *_: None)
    assert not any(can_be_cut(transformer) for transformer in transformers)
    yield clip


def features(clip: CLIP) -> tuple[Tensor, Tensor]:
    """Of the same images and texts in every call."""
    torch.manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tokens = clip.tokenize(["a photo of a cat.", "a bird.", "the old steam engine."])
    return clip.encode_image(images), clip.encode_text(tokens)


def test_cut_last_blocks_give_the_same_features_and_gradients(tiny_clip):
    results = []
    for clip in as_cut_and_as_whole(tiny_clip):
        clip.zero_grad()
        outputs = features(clip)
        (outputs[0].square()[:, 0].sum() + outputs[1][:, 1].sum()).backward()
        gradients = {n: p.grad.clone() for n, p in clip.named_parameters() if p.grad is not None}
        results.append((outputs, gradients))
    (cut, cut_gradients), (full, full_gradients) = results
    for one, other in zip(cut, full, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert cut_gradients.keys() == full_gradients.keys()
    for name, gradient in cut_gradients.items():
        torch.testing.assert_close(gradient, full_gradients[name], atol=1e-5, rtol=1e-4)


def test_cut_last_blocks_with_updates_beside_their_weights_give_the_same(tiny_clip):
    for adapter in attach(tiny_clip, tiny_clip.attention_linears(), 4, 0.5, core=True).values():
        adapter.set_factors(down=torch.randn(4, 64), up=torch.randn(64, 4), core=torch.eye(4))
    results = [features(clip) for clip in as_cut_and_as_whole(tiny_clip)]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_only_keys_and_values_of_the_last_block_see_all_tokens(tiny_clip):
    seen: dict[str, torch.Size] = {}
    attention = tiny_clip.blocks("vision")[-1].attn
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer = attention.get_submodule(name)

        def forward(x: Tensor, name: str = name, call=layer.forward) -> Tensor:
            seen[name] = x.shape
            return call(x)

        layer.forward = forward
    features(tiny_clip)
    assert seen["q_proj"] == seen["out_proj"] == (4, 1, 64)
    assert seen["k_proj"] == seen["v_proj"] == (4, 17, 64)


def test_last_mlp_sees_one_token_unless_somebody_looks(tiny_clip):
    seen: list[torch.Size] = []
    mlp = tiny_clip.blocks("vision")[-1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: seen.append(x.shape) or forward(x)
    features(tiny_clip)
    mlp.c_fc.register_forward_pre_hook(lambda *_: None)
    features(tiny_clip)
    assert seen == [(4, 1, 64), (4, 17, 64)]


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_foreign_parts_are_run_as_they_are(tiny_clip):
    transformer = tiny_clip.network.visual.transformer
    assert can_be_cut(transformer)
    before = features(tiny_clip)
    transformer.resblocks[-1] = Wrapper(transformer.resblocks[-1])
    assert not can_be_cut(transformer)
    torch.testing.assert_close(features(tiny_clip), before)


@pytest.mark.parametrize("part", ["attn.out_proj", "mlp.c_fc", "ln_1"])
def test_a_foreign_part_in_the_last_block_sees_all_tokens(tiny_clip, part):
    last = tiny_clip.blocks("vision")[-1]
    before = features(tiny_clip)
    parent, _, name = part.rpartition(".")
    seen: list[int] = []
    foreign = Wrapper(last.get_submodule(part))
    forward = foreign.forward
    foreign.forward = lambda x: seen.append(x.shape[1]) or forward(x)
    setattr(last.get_submodule(parent), name, foreign)
    assert not can_be_cut(tiny_clip.network.visual.transformer)
    torch.testing.assert_close(features(tiny_clip), before)
    assert seen == [17]


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_image_encoders_that_average_tokens_are_not_cut(pool):
    vision = {"image_size": 16, "patch_size": 8, "width": 64, "layers": 1, "pool_type": pool}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    network = open_clip.CLIP(16, vision, text)
    assert reads_class_token_only(network.visual) == (pool == "tok")


def test_cut_block_picks_the_asked_tokens(tiny_clip):
    transformer = tiny_clip.network.visual.transformer
    x = torch.randn(3, 5, 64)
    tokens = torch.tensor([4, 0, 2])
    expected = transformer(x)[torch.arange(3), tokens]
    torch.testing.assert_close(run_to_tokens(transformer, x, tokens)[:, 0], expected)
    torch.testing.assert_close(run_to_tokens(transformer, x, 2)[:, 0], transformer(x)[:, 2])


@pytest.mark.parametrize("kinds", [(torch.uint8, torch.uint8), (torch.uint8, torch.float32)])
def test_batches_encoded_together_have_the_features_of_each(tiny_clip, kinds):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    batches = [images[:2].to(kinds[0]), images[2:].to(kinds[1])]
    for features, batch in zip(tiny_clip.encode_together(*batches), batches, strict=True):
        torch.testing.assert_close(features, tiny_clip.encode_image(batch))


def pairs(images: Tensor, source: str = "benchmark") -> ReferencePairs:
    labels = torch.arange(len(images)) % 2
    return ReferencePairs(images, ("a cat.", "a dog."), labels, source)


def test_teacher_sees_every_image_of_a_fixed_source_once(tiny_clip):
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    reference = Reference(tiny_clip.eval())
    seen: list[int] = []
    encode = reference.teacher.encode_image
    reference.teacher.encode_image = lambda x: seen.append(len(x)) or encode(x)
    reference.set_pairs(pairs(images[[0, 1, 2, 1]]))
    reference.set_pairs(pairs(images[[2, 3, 0, 4]]))
    assert seen == [3, 2]
    texts = reference.teacher.encode_text(reference.tokens)
    expected = reference.teacher.logits(images[[2, 3, 0, 4]], texts)
    torch.testing.assert_close(reference.pairs["logits"], expected, atol=1e-4, rtol=0)

    reference.set_pairs(pairs(images[:2], source="task"))
    assert len(reference.known) == 5
    assert seen[-1] == 2


def test_teacher_goes_on_after_a_checkpoint_where_it_was(tiny_clip):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    reference = Reference(tiny_clip.eval())
    reference.set_pairs(pairs(images))
    reference.clear()
    other = Reference(tiny_clip)
    other.load_state_dict(saved(reference.state_dict()))

    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("encoded again")

    other.teacher.encode_image = refuse
    other.set_pairs(pairs(images.flip(0)))
    reference.set_pairs(pairs(images.flip(0)))
    assert torch.equal(other.pairs["logits"], reference.pairs["logits"])


def test_memory_for_known_features_is_bounded(monkeypatch):
    monkeypatch.setattr("clbench.clip.known_features.LIMIT", 3)
    known = KnownFeatures()
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    for _ in range(2):
        features = known.features(images, lambda x: x[:, :, 0, 0].float())
        assert torch.equal(features[:, 0], torch.arange(5.0))
        assert len(known) == 3
    assert LIMIT * 512 * 4 == 64 * 2**20
