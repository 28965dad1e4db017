"""Scored pairs are taken in turn, and streams are gone through; both go on after a checkpoint."""

import pytest
import torch
from torch import Tensor

from clbench.clip.reference import ScoredPairs, StreamedImages
from clbench.core.data import ReferencePairs
from clbench.testing.driving import saved
from clbench.testing.toys import ToyStream

CAPTIONS = ("a cat.", "a dog.", "a fox.")


@pytest.fixture
def pairs() -> ReferencePairs:
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    return ReferencePairs(images, CAPTIONS, torch.tensor([0, 1, 2, 0, 1, 2, 2]), "anywhere")


def numbers(images: Tensor, among: Tensor) -> list[int]:
    return [
        next(i for i, other in enumerate(among) if torch.equal(image, other)) for image in images
    ]


def test_each_pair_comes_once_and_in_order_pass_after_pass(tiny_clip, pairs):
    scored = ScoredPairs()
    scored.set_pairs(pairs, tiny_clip)
    passes = [numbers(scored.take(3).images, pairs.images) for _ in range(6)]
    assert passes == [[0, 1, 2], [3, 4, 5], [6]] * 2


def test_a_batch_has_the_teachers_scores_of_its_own_pairs(tiny_clip, pairs):
    scored = ScoredPairs()
    scored.set_pairs(pairs, tiny_clip)
    scored.take(4)
    batch = scored.take(4)
    assert [CAPTIONS[int(batch.captions[i])] for i in batch.labels] == [
        "a dog.",
        "a fox.",
        "a fox.",
    ]
    texts = tiny_clip.encode_text(tiny_clip.tokenize(CAPTIONS))[batch.captions][batch.labels]
    expected = tiny_clip.logits(batch.images, texts).detach()
    torch.testing.assert_close(batch.teacher_logits, expected, atol=1e-4, rtol=0)
    assert not batch.teacher_logits.requires_grad


def test_pairs_go_on_after_a_checkpoint(tiny_clip, pairs):
    scored, resumed = ScoredPairs(), ScoredPairs()
    scored.set_pairs(pairs, tiny_clip)
    scored.take(3)
    resumed.load_state_dict(saved(scored.state_dict()))
    assert numbers(resumed.take(3).images, pairs.images) == [3, 4, 5]
    scored.clear()
    resumed.load_state_dict(saved(scored.state_dict()))
    assert resumed.pairs == {}


def test_a_stream_goes_on_after_a_checkpoint(pairs):
    def stream() -> ToyStream:
        return ToyStream(pairs.images, CAPTIONS, seed=3, source="elsewhere")

    whole, resumed = StreamedImages(), StreamedImages()
    whole.open(stream())
    for _ in range(2):
        whole.take(4)
    resumed.open(stream())
    resumed.load_state_dict(saved(whole.state_dict()))
    assert torch.equal(resumed.take(4), whole.take(4))
    whole.close()
    assert whole.external == pairs.images.numel() + sum(map(len, CAPTIONS))
    whole.open(ToyStream(pairs.images, CAPTIONS, seed=3, source="task"))
    assert whole.external == 0
