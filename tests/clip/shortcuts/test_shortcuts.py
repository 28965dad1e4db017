"""Passes through the encoders that leave work out give what the whole passes give."""

from collections.abc import Iterator

import open_clip
import pytest
import torch
from torch import Tensor, nn

from clbench.clip.adapters.attach import attach
from clbench.clip.layers.activation import QuickGELU
from clbench.clip.model import CLIP
from clbench.clip.reference import Reference
from clbench.clip.shortcuts.known_features import LIMIT, KnownFeatures
from clbench.clip.shortcuts.last_block import can_be_cut, reads_class_token_only, run_to_tokens
from clbench.core.data import ReferencePairs
from clbench.testing.driving import saved


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


def record_inputs(monkeypatch, cls: type[nn.Module]) -> dict[int, torch.Size]:
    """Shapes of what modules of a class receive, by the module's id."""
    seen: dict[int, torch.Size] = {}
    forward = cls.forward

    def recording(self, x: Tensor) -> Tensor:
        seen[id(self)] = x.shape
        return forward(self, x)

    monkeypatch.setattr(cls, "forward", recording)
    return seen


def test_only_keys_and_values_of_the_last_block_see_all_tokens(tiny_clip, monkeypatch):
    seen = record_inputs(monkeypatch, nn.Linear)
    attention = tiny_clip.blocks("vision")[-1].attn
    features(tiny_clip)
    assert seen[id(attention.q_proj)] == seen[id(attention.out_proj)] == (4, 1, 64)
    assert seen[id(attention.k_proj)] == seen[id(attention.v_proj)] == (4, 17, 64)


def hook(mlp: nn.Sequential) -> None:
    mlp.c_fc.register_forward_pre_hook(lambda *_: None)


def replace_forward(mlp: nn.Sequential) -> None:
    forward = mlp.c_proj.forward
    mlp.c_proj.forward = lambda x: forward(x)


@pytest.mark.parametrize("look", [hook, replace_forward])
def test_last_mlp_sees_one_token_unless_somebody_looks(tiny_clip, monkeypatch, look):
    seen = record_inputs(monkeypatch, nn.Sequential)
    mlp = tiny_clip.blocks("vision")[-1].mlp
    features(tiny_clip)
    assert seen[id(mlp)] == (4, 1, 64)
    look(mlp)
    features(tiny_clip)
    assert seen[id(mlp)] == (4, 17, 64)


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


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Number of images of every pass through an image encoder."""
    seen: list[int] = []
    encode = CLIP.encode_image
    monkeypatch.setattr(CLIP, "encode_image", lambda s, x: seen.append(len(x)) or encode(s, x))
    return seen


def test_teacher_sees_every_image_of_a_fixed_source_once(tiny_clip, encoded):
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    reference = Reference(tiny_clip.eval())
    reference.set_pairs(pairs(images[[0, 1, 2, 1]]))
    reference.set_pairs(pairs(images[[2, 3, 0, 4]]))
    reference.sample(2, torch.Generator())
    assert encoded == [3, 2]
    texts = reference.teacher.encode_text(reference.tokens)
    expected = reference.teacher.logits(images[[2, 3, 0, 4]], texts)
    torch.testing.assert_close(reference.pairs["logits"], expected, atol=1e-4, rtol=0)

    reference.set_pairs(pairs(images[:2], source="task"))
    assert len(reference.known) == 5
    assert encoded[-1] == 2


def by_an_optimizer(teacher: CLIP) -> None:
    teacher.network.visual.proj.grad = torch.randn_like(teacher.network.visual.proj)
    torch.optim.SGD([teacher.network.visual.proj], lr=1.0).step()


def by_loading(teacher: CLIP) -> None:
    teacher.load_state_dict({k: v + 0.1 for k, v in teacher.state_dict().items()})


def by_its_data(teacher: CLIP) -> None:
    teacher.network.text_projection.data.copy_(teacher.network.text_projection.data.flip(0).clone())


@pytest.mark.parametrize("source", ["benchmark", "task"])
@pytest.mark.parametrize("update", [by_an_optimizer, by_loading, by_its_data])
@pytest.mark.parametrize("between", ["steps", "tasks"])
def test_a_teacher_that_is_updated_scores_anew(tiny_clip, update, source, between):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    reference = Reference(tiny_clip.eval())
    given = pairs(images, source)
    reference.set_pairs(given)
    before = reference.sample(4, torch.Generator().manual_seed(0)).teacher_logits
    update(reference.teacher)
    if between == "tasks":
        reference.set_pairs(given)
    after = reference.sample(4, torch.Generator().manual_seed(0))
    texts = reference.teacher.encode_text(reference.tokens)[after.captions][after.labels]
    torch.testing.assert_close(
        after.teacher_logits, reference.teacher.logits(after.images, texts), atol=1e-4, rtol=0
    )
    assert not torch.allclose(after.teacher_logits, before, atol=1e-3)


def test_a_teacher_of_unknown_parts_scores_every_time(tiny_clip, encoded):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tiny_clip.replace("network.visual.ln_post", Wrapper(tiny_clip.network.visual.ln_post))
    reference = Reference(tiny_clip.eval())
    for _ in range(2):
        reference.set_pairs(pairs(images))
        reference.sample(2, torch.Generator())
    assert encoded == [4] * 4


def test_teacher_goes_on_after_a_checkpoint_where_it_was(tiny_clip, encoded):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    reference = Reference(tiny_clip.eval())
    reference.set_pairs(pairs(images))
    middle = saved(reference.state_dict())
    reference.clear()
    other = Reference(tiny_clip)
    other.load_state_dict(saved(reference.state_dict()))
    other.set_pairs(pairs(images.flip(0)))
    reference.set_pairs(pairs(images.flip(0)))
    assert torch.equal(other.pairs["logits"], reference.pairs["logits"])
    other.load_state_dict(middle)
    other.sample(3, torch.Generator())
    assert encoded == [5]


def test_memory_for_known_features_is_bounded(monkeypatch):
    monkeypatch.setattr("clbench.clip.shortcuts.known_features.LIMIT", 3)
    known = KnownFeatures()
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    for _ in range(2):
        features = known.features(images, lambda x: x[:, :, 0, 0].float(), "state")
        assert torch.equal(features[:, 0], torch.arange(5.0))
        assert len(known) == 3
    assert LIMIT * 512 * 4 == 64 * 2**20
