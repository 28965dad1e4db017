"""A replay memory keeps what it says, fairly, and comes back as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clbench.clip.replay import ReplayMemory, random_crops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(first: int, count: int, size: int = 2) -> Tensor:
    """Images whose pixels all say which image it is."""
    numbers = torch.arange(first, first + count, dtype=torch.uint8)
    return numbers.view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()


def filled(capacity: int, offered: int, *, part: int = 7, seed: int = 0) -> ReplayMemory:
    """A memory to which images were offered, some at a time; an image's id is its number."""
    memory, draws = ReplayMemory(capacity), generator(seed)
    for first in range(0, offered, part):
        images = numbered(first, min(part, offered - first))
        memory.offer(images, images[:, 0, 0, 0].long(), draws)
    return memory


def test_it_keeps_everything_until_it_is_full() -> None:
    memory = filled(10, 8)
    assert len(memory) == int(memory.offered) == 8
    assert memory.ids.tolist() == list(range(8))
    assert torch.equal(memory.images, numbered(0, 8))


def test_it_never_holds_more_and_labels_stay_with_their_images() -> None:
    memory = filled(10, 93)
    assert len(memory) == 10
    assert int(memory.offered) == 93
    assert torch.equal(memory.images[:, 0, 0, 0].long(), memory.ids)
    assert memory.nbytes == 10 * (3 * 2 * 2) + 10 * 8
    assert ReplayMemory(10).nbytes == 0


def test_every_image_is_kept_with_the_same_probability() -> None:
    """400 memories of 10 out of 30: each image is in a third of them, give or take five sigma."""
    runs, capacity, offered = 400, 10, 30
    counts = torch.zeros(offered)
    for seed in range(runs):
        counts[filled(capacity, offered, part=4, seed=seed).ids] += 1
    share = capacity / offered
    sigma = (runs * share * (1 - share)) ** 0.5
    assert (counts - runs * share).abs().max() < 5 * sigma


def test_how_images_are_split_into_batches_does_not_matter() -> None:
    memories = [filled(10, 50, part=part) for part in (1, 7, 50)]
    assert all(torch.equal(memories[0].images, memory.images) for memory in memories)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_other_types_than_uint8_are_refused(dtype: torch.dtype) -> None:
    memory = ReplayMemory(4)
    with pytest.raises(ValueError, match=f"keeps uint8 images, not {dtype}"):
        memory.offer(numbered(0, 2).to(dtype), torch.zeros(2, dtype=torch.int64), generator())
    with pytest.raises(ValueError, match="2 images but 3 ids"):
        memory.offer(numbered(0, 2), torch.zeros(3, dtype=torch.int64), generator())
    assert len(memory) == int(memory.offered) == 0


@pytest.mark.parametrize("before", [0, 3, 20])
def test_the_state_dict_brings_it_back_and_it_goes_on(before: int) -> None:
    memory, draws = filled(10, 40), generator(9)
    fresh = filled(10, before, seed=1)
    fresh.load_state_dict(memory.state_dict())
    assert torch.equal(fresh.images, memory.images)
    for one in (memory, fresh):
        draws.manual_seed(9)
        one.offer(numbered(40, 60), torch.arange(40, 100), draws)
    assert torch.equal(fresh.images, memory.images)
    assert torch.equal(fresh.ids, memory.ids)
    assert int(fresh.offered) == 100


def test_samples_have_no_image_twice() -> None:
    memory = filled(10, 40)
    drawn = memory.sample(6, generator())
    assert len(set(drawn.ids.tolist())) == 6
    assert torch.equal(drawn.images[:, 0, 0, 0].long(), drawn.ids)
    assert set(drawn.ids.tolist()) <= set(memory.ids.tolist())
    everything = memory.sample(99, generator())
    assert sorted(everything.ids.tolist()) == sorted(memory.ids.tolist())
    assert torch.equal(memory.sample(6, generator()).ids, drawn.ids)
    assert len(ReplayMemory(3).sample(2, generator(), augmented=True).ids) == 0


def test_crops_stay_inside_and_show_most_of_the_image() -> None:
    """A ramp from left to right and from top to bottom tells where a crop was taken."""
    ramp = torch.linspace(40, 200, 32)
    image = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T, ramp.expand(32, 32)])
    images = image.to(torch.uint8).expand(200, -1, -1, -1)
    crops = random_crops(images, generator()).float()
    assert crops.shape == images.shape
    assert crops.min() >= 38, "nothing was filled in from outside"
    assert crops.max() <= 202
    width = (crops[:, 0, 16, -1] - crops[:, 0, 16, 0]) / (200 - 40)
    height = (crops[:, 1, -1, 16] - crops[:, 1, 0, 16]) / (200 - 40)
    area = (width * height).clamp(max=1)
    assert 0.8 < area.min() < 0.93
    assert area.max() > 0.95
    assert len({round(float(left), 1) for left in crops[:, 0, 16, 0]}) > 3, "places differ"


def test_augmented_samples_follow_the_generator_and_leave_the_memory_alone() -> None:
    memory, random = ReplayMemory(8), torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    memory.offer(random, torch.arange(8), generator())
    first, again = (memory.sample(8, generator(4), augmented=True) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, random[first.ids])
    assert first.images.dtype == torch.uint8
    assert torch.equal(memory.images, random)


@pytest.mark.parametrize("part", [1, 7, 60])
def test_a_balanced_memory_holds_equally_many_of_every_class(part: int) -> None:
    """Class 0 has 40 images, classes 1 to 3 have 12, 5 and 1; they come mixed."""
    ids = torch.tensor([0] * 40 + [1] * 12 + [2] * 5 + [3])[torch.randperm(58)]
    memory = ReplayMemory(20, balanced=True)
    for first in range(0, 58, part):
        chosen = ids[first : first + part]
        memory.offer(numbered(first, len(chosen)), chosen, generator())
    assert len(memory) == 20
    assert torch.equal(ids[memory.images[:, 0, 0, 0].long()], memory.ids)
    assert memory.ids.bincount().tolist() == [7, 7, 5, 1]


def test_a_balanced_memory_gives_way_to_new_classes() -> None:
    memory, draws = ReplayMemory(9, balanced=True), generator()
    for number in range(4):
        memory.offer(numbered(10 * number, 10), torch.full((10,), number), draws)
        counts = memory.ids.bincount()
        assert counts.sum() == 9
        assert counts.max() - counts.min() <= 1
    for number in range(4, 20):
        memory.offer(numbered(10 * number, 10), torch.full((10,), number), draws)
    assert memory.ids.bincount().max() == 1, "nine of twenty classes"


def test_logits_stay_with_their_images_and_leave_with_them() -> None:
    memory, draws = ReplayMemory(6), generator()
    memory.offer(numbered(0, 6), torch.zeros(6, dtype=torch.int64), draws)
    memory.remember(torch.arange(6), torch.arange(6.0)[:, None].expand(6, 2))
    memory.offer(numbered(6, 20), torch.ones(20, dtype=torch.int64), draws)
    old = memory.ids == 0
    assert 0 < old.sum() < 6
    assert memory.logits is not None
    numbers = memory.images[:, 0, 0, 0].float()
    assert torch.equal(memory.logits[old], numbers[old][:, None].expand(-1, 2))
    assert memory.logits[~old].isnan().all()
    rows = (~old).nonzero()[:, 0]
    memory.remember(rows, torch.ones(len(rows), 3))
    assert memory.logits.shape == (6, 3)
    assert memory.logits[old][:, 2].isnan().all()
    drawn = memory.sample(6, draws)
    assert drawn.logits is not None
    assert torch.equal(drawn.logits[drawn.ids == 1], torch.ones(len(rows), 3))
