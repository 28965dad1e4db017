"""Text features are computed once where they are constants, and anew whenever they could differ.

Most tests are methods that would get a wrong number if something remembered were used again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from clbench.clip.adapters.attach import attach
from clbench.clip.layers.together import declare
from clbench.clip.model import CLIP
from clbench.clip.shortcuts import constancy
from clbench.clip.shortcuts.constancy import Memo, bit_digests, fingerprint, lasting
from clbench.core.task import ClassTexts

CLASSES = ClassTexts.from_templates(["cat", "fire truck"], ["a photo of a {}.", "the {}."])
OTHERS = ClassTexts.from_templates(["dog"], ["a photo of a {}."])
TEXTS = ["a photo of a cat.", "a photo of a dog.", "a bird."]


@pytest.fixture
def clip(tiny_clip: CLIP) -> CLIP:
    return tiny_clip.requires_grad_(False).eval()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of texts of every pass through the text encoder."""
    passes: list[int] = []
    encode = CLIP.encode_text

    def counting(self: CLIP, tokens: Tensor) -> Tensor:
        passes.append(len(tokens))
        return encode(self, tokens)

    monkeypatch.setattr(CLIP, "encode_text", counting)
    return passes


def fresh(clip: CLIP, classes: ClassTexts = CLASSES) -> Tensor:
    """Class features that owe nothing to what was remembered."""
    clip._memo = Memo(1)
    return clip.class_features(classes)


def test_frozen_texts_are_encoded_once(clip: CLIP, encoded: list[int]) -> None:
    tokens = clip.tokenize(TEXTS)
    first = clip.text_features(tokens)
    torch.testing.assert_close(clip.text_features(tokens, torch.tensor([2, 0])), first[[2, 0]])
    assert encoded == [3]
    assert torch.equal(clip.text_features(tokens.clone()), first)  # the same texts
    assert encoded == [3]
    assert torch.equal(clip.class_features(CLASSES), clip.class_features(CLASSES))
    assert encoded == [3, 4]


def test_other_texts_in_the_same_tensor_are_encoded(clip: CLIP, encoded: list[int]) -> None:
    tokens = clip.tokenize(TEXTS)
    before = clip.text_features(tokens)
    tokens.data.copy_(tokens.flip(0).clone())
    torch.testing.assert_close(clip.text_features(tokens), before.flip(0))
    assert encoded == [3, 3]


def test_another_tokenizer_is_asked(clip: CLIP) -> None:
    before, tokenizer = clip.class_features(CLASSES), clip.tokenizer
    clip.tokenizer = lambda texts: tokenizer([text.replace("cat", "dog") for text in texts])
    assert not torch.allclose(clip.class_features(CLASSES)[0], before[0], atol=1e-3)
    torch.testing.assert_close(clip.class_features(CLASSES)[1], before[1])


def test_remembered_features_are_those_of_the_encoder(clip: CLIP) -> None:
    tokens = clip.tokenize(TEXTS)
    clip.text_features(tokens)
    torch.testing.assert_close(clip.text_features(tokens), clip.encode_text(tokens))


def test_what_a_caller_does_to_features_stays_with_the_caller(clip: CLIP) -> None:
    before = clip.class_features(CLASSES)
    expected = before.clone()
    before.zero_()
    clip.class_features(CLASSES).data.zero_()
    assert torch.equal(clip.class_features(CLASSES), expected)


# Edits of weights, each of which a method may make between two look-ups.


def in_place(clip: CLIP) -> None:
    clip.attention_linears("text")[0][1].weight.normal_()


def by_loading(clip: CLIP) -> None:
    state = {name: value + 0.1 for name, value in clip.state_dict().items()}
    clip.load_state_dict(state)


def by_data(clip: CLIP) -> None:
    weight = clip.network.text_projection
    weight.data = torch.randn_like(weight)


def by_copy_into_data(clip: CLIP) -> None:
    weight = clip.network.text_projection
    weight.data.copy_(torch.randn_like(weight))


def by_numpy(clip: CLIP) -> None:
    clip.network.text_projection.detach().numpy()[:] *= -1


def by_permuting_rows(clip: CLIP) -> None:
    weight = clip.network.text_projection
    weight.data.copy_(weight.data.flip(0).clone())


def by_another_module(clip: CLIP) -> None:
    name, layer = clip.attention_linears("text")[0]
    clip.replace(name, nn.Linear(layer.in_features, layer.out_features).requires_grad_(False))


def by_replacing_the_parameter_twice(clip: CLIP) -> None:
    layer = clip.attention_linears("text")[0][1]
    for _ in range(2):  # the second may get the id and the memory of the first
        weight = torch.randn_like(layer.weight)
        layer.weight = nn.Parameter(weight, requires_grad=False)


def by_setting_data_twice(clip: CLIP) -> None:
    layer = clip.attention_linears("text")[0][1]
    for _ in range(2):
        layer.weight.data = torch.randn_like(layer.weight)


def by_merging(clip: CLIP) -> None:
    for adapter in attach(clip, clip.attention_linears("text"), 2, 1.0, trained=()).values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
        adapter.merge()


def by_a_fused_optimizer(clip: CLIP) -> None:
    weight = clip.network.text_projection
    weight.requires_grad_(True)
    weight.grad = torch.randn_like(weight)
    torch.optim.AdamW([weight], lr=0.5, fused=True).step()
    weight.grad = None
    weight.requires_grad_(False)


EDITS: list[Callable[[CLIP], None]] = [
    in_place,
    by_loading,
    by_data,
    by_copy_into_data,
    by_numpy,
    by_permuting_rows,
    by_another_module,
    by_replacing_the_parameter_twice,
    by_setting_data_twice,
    by_merging,
    by_a_fused_optimizer,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@torch.no_grad()
def test_every_edit_of_a_weight_is_noticed(clip: CLIP, edit: Callable[[CLIP], None]) -> None:
    tokens = clip.tokenize(TEXTS)
    before = clip.class_features(CLASSES), clip.text_features(tokens)
    edit(clip)
    after = clip.class_features(CLASSES), clip.text_features(tokens)
    for old, new in zip(before, after, strict=True):
        assert not torch.allclose(old, new, atol=1e-3)
    torch.testing.assert_close(after[1], clip.encode_text(tokens))
    torch.testing.assert_close(after[0], fresh(clip))


@torch.no_grad()
def test_ids_and_memory_that_are_used_again_are_no_excuse(clip: CLIP) -> None:
    for trial in range(40):
        clip.class_features(CLASSES)
        if trial % 2:
            by_replacing_the_parameter_twice(clip)
        else:
            by_setting_data_twice(clip)
        assert torch.equal(clip.class_features(CLASSES), fresh(clip)), trial


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


def test_a_trained_encoder_is_remembered_where_no_gradient_is_asked_for(
    clip: CLIP, encoded: list[int]
) -> None:
    clip.requires_grad_(True)
    with torch.inference_mode():
        clip.class_features(CLASSES)
        clip.class_features(CLASSES)
    assert encoded == [4]


# Methods that switch something between two batches of one test.


@contextmanager
def adapters_on(clip: CLIP, active: bool) -> Iterator[None]:
    for module in clip.modules():
        if hasattr(module, "active"):
            module.active = active
    yield


@torch.no_grad()
def test_switching_adapters_between_two_batches_is_noticed(clip: CLIP) -> None:
    for adapter in attach(clip, clip.attention_linears("text"), 2, 1.0).values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
    seen = []
    for active in (True, False, True, False):
        with adapters_on(clip, active):
            seen.append(clip.class_features(CLASSES))
            assert torch.equal(seen[-1], fresh(clip))
    assert torch.equal(seen[0], seen[2])
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


@torch.no_grad()
def test_another_scale_of_an_adapter_is_noticed(clip: CLIP) -> None:
    adapters = attach(clip, clip.attention_linears("text"), 2, 1.0)
    for adapter in adapters.values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
    clip.class_features(CLASSES)
    for adapter in adapters.values():
        adapter.scale = 5.0
    assert torch.equal(clip.class_features(CLASSES), fresh(clip))


class Experts(nn.Module):
    """One of several layers, chosen by an attribute; declares nothing."""

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
        for expert in self.layers:
            nn.init.normal_(expert.weight)
        self.chosen = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[self.chosen](x)


@declare(pure=True)
class DeclaredExperts(Experts):
    """The same, with a declaration."""


class Undeclared(DeclaredExperts):
    """Declarations are not inherited: this may look at anything."""


@pytest.mark.parametrize(
    ("experts", "passes"), [(Experts, 4), (DeclaredExperts, 2), (Undeclared, 4)]
)
@torch.no_grad()
def test_a_router_gets_the_features_of_the_expert_it_chose(
    clip: CLIP, encoded: list[int], experts: type[Experts], passes: int
) -> None:
    name, layer = clip.attention_linears("text")[0]
    router = experts(layer, 2)
    clip.replace(name, router)
    seen = []
    for chosen in (0, 1, 0, 1):
        router.chosen = chosen
        seen.append(clip.class_features(CLASSES))
    assert len(encoded) == passes
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


class Switch(nn.Module):
    """A part that looks at something which is not a tensor."""

    sign = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.sign * x


def test_nothing_is_remembered_of_modules_that_declare_nothing(clip: CLIP) -> None:
    before = clip.class_features(CLASSES)
    clip.replace("network.ln_final", nn.Sequential(clip.network.ln_final, Switch()))
    torch.testing.assert_close(clip.class_features(CLASSES), before)
    Switch.sign = -1.0
    try:
        torch.testing.assert_close(clip.class_features(CLASSES), -before)
    finally:
        Switch.sign = 1.0


@pytest.mark.parametrize("module", ["torch.nn.modules.linear", "clbench.clip.layers.x"])
def test_a_package_earns_no_trust(clip: CLIP, module: str) -> None:
    part = type("Part", (Switch,), {"__module__": module})()
    clip.replace("network.ln_final", part)
    before = clip.class_features(CLASSES)
    part.sign = -1.0
    torch.testing.assert_close(clip.class_features(CLASSES), -before)


def test_nothing_is_remembered_beside_a_replaced_method(clip: CLIP, encoded: list[int]) -> None:
    layer = clip.attention_linears("text")[0][1]
    forward = layer.forward
    layer.forward = lambda x: forward(x)  # type: ignore[method-assign]
    clip.class_features(CLASSES)
    clip.class_features(CLASSES)
    assert encoded == [4, 4]


def test_nothing_is_remembered_beside_hooks_and_dropout(clip: CLIP, encoded: list[int]) -> None:
    tokens = clip.tokenize(TEXTS)
    block = clip.blocks("text")[0]
    handle = block.register_forward_hook(lambda *_: None)
    clip.text_features(tokens)
    clip.text_features(tokens)
    handle.remove()
    everywhere = nn.modules.module.register_module_forward_hook(lambda *_: None)
    clip.text_features(tokens)
    clip.text_features(tokens)
    everywhere.remove()
    for adapter in attach(clip, clip.attention_linears("text"), 2, 1.0, dropout=0.5).values():
        adapter.set_factors(down=torch.randn(2, 64), up=torch.randn(64, 2))
    clip.requires_grad_(False).train()
    assert not torch.equal(clip.text_features(tokens), clip.text_features(tokens))
    assert encoded == [3] * 6


def test_an_attribute_that_cannot_be_compared_keeps_from_remembering(clip: CLIP) -> None:
    assert fingerprint(clip) is not None
    clip.network.ln_final.notes = object()
    assert fingerprint(clip) is None


def test_tensors_in_attributes_count(clip: CLIP) -> None:
    clip.network.ln_final.prompts = [torch.zeros(2)]
    before = fingerprint(clip)
    assert fingerprint(clip) == before
    clip.network.ln_final.prompts[0][1] = 1.0
    assert fingerprint(clip) != before


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


def test_the_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    memo, computed = Memo(2), []

    def ask(key: int) -> None:
        memo.get(key, lambda: computed.append(key) or torch.zeros(1))

    for key in (1, 2, 1, 3, 1, 2):
        ask(key)
    assert computed == [1, 2, 3, 2]


# Hashes of bits, on the CPU and as they are computed on a device.


@pytest.fixture(params=["cpu", "device"])
def digests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable:
    if request.param == "device":
        monkeypatch.setattr(constancy, "_hash_on_cpu", constancy._hash_on_device)
        monkeypatch.setattr(constancy, "_WORDS", 64)
        monkeypatch.setattr(constancy, "_WEIGHTS", {})
    return lambda *tensors: bit_digests(tensors)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_digests_see_values_and_places(digests: Callable, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2, (20, 15), generator=generator).to(dtype)
    seen = {digests(values)}
    for change in (values.flip(0), values.flip(1), values.view(15, 20), values[:, :14], values.T):
        seen.add(digests(change))
    one = values.clone()
    one[7, 3] = 1 - one[7, 3].int()
    seen.add(digests(one))
    assert len(seen) == 7
    assert digests(values.clone()) == digests(values)


def test_digests_see_signs_and_swaps_everywhere(digests: Callable) -> None:
    torch.manual_seed(0)
    values = torch.randn(200)
    before = digests(values)
    for _ in range(50):
        i, j = torch.randperm(200)[:2].tolist()
        swapped, negated = values.clone(), values.clone()
        swapped[[i, j]] = values[[j, i]]
        negated[[i, j]] *= -1
        assert len({digests(swapped), digests(negated), before}) == 3


def test_digests_of_nothing_and_of_views(digests: Callable) -> None:
    empty = torch.zeros(0, 3)
    assert digests(empty) == digests(empty.clone())
    assert digests(torch.tensor(1.0)) != digests(torch.tensor(2.0))
    stored = torch.randn(4, 4)
    assert digests(stored.T) == digests(stored.T.contiguous())


def test_tensors_without_bits_are_refused() -> None:
    assert bit_digests([torch.zeros(2, device="meta")]) is None
    assert bit_digests([torch.zeros(2, 2).to_sparse()]) is None


def test_a_lasting_fingerprint_is_that_of_an_equal_model(clip: CLIP) -> None:
    state = lasting(fingerprint(clip.network.visual))
    assert state == lasting(fingerprint(copy.deepcopy(clip).network.visual))
    in_place(copy.deepcopy(clip))
    assert state == lasting(fingerprint(clip.network.visual))
    with torch.no_grad():
        clip.network.visual.proj.mul_(2)
    assert state != lasting(fingerprint(clip.network.visual))
