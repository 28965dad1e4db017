"""Passes through the encoders that leave work out give what the whole passes give."""

import open_clip
import pytest
import torch
from torch import Tensor, nn

from clbench.clip.layers.activation import QuickGELU
from clbench.clip.model import CLIP
from clbench.clip.reference import Reference
from clbench.clip.shortcuts.known_features import LIMIT, KnownFeatures
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


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


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
    reference.take(2)
    assert encoded == [3, 2]
    texts = reference.teacher.encode_text(reference.tokens)
    expected = reference.teacher.logits(images[[2, 3, 0, 4]], texts)
    torch.testing.assert_close(reference.scored.pairs["logits"], expected, atol=1e-4, rtol=0)

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
    before = reference.take(4).teacher_logits
    update(reference.teacher)
    if between == "tasks":
        reference.set_pairs(given)
    after = reference.take(4)
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
        reference.take(2)
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
    assert torch.equal(other.scored.pairs["logits"], reference.scored.pairs["logits"])
    other.load_state_dict(middle)
    other.take(3)
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
