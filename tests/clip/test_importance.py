"""The Fisher information is that of single images, worked out by hand where that is possible."""

from __future__ import annotations

import torch

from clbench.clip.importance import diagonal_fisher
from clbench.core.data import Batch
from clbench.testing.toys import make_task


def test_squares_the_gradient_of_every_image_by_itself() -> None:
    _, data = make_task(0, size=6)
    weight, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    signs = torch.tensor([1.0, -1.0, 2.0])

    def loss(batch: Batch) -> torch.Tensor:
        assert len(batch.images) == 1
        return (weight * signs[batch.labels]).sum()

    fisher = diagonal_fisher(loss, [weight, unused], data, 100, seed=0)
    # Labels come round in turn: (1 + 1 + 4) / 3, although the gradients' mean is 2 / 3.
    torch.testing.assert_close(fisher[0], torch.tensor([2.0, 2.0]))
    assert torch.equal(fisher[1], torch.zeros(3))
    assert weight.grad is None


def test_looks_at_as_many_images_as_it_is_told_and_draws_them_by_the_seed() -> None:
    _, data = make_task(0, size=24)
    weight = torch.ones(1, requires_grad=True)
    seen: list[list[int]] = []

    def loss(batch: Batch) -> torch.Tensor:
        seen[-1].append(int(batch.images.sum()))
        return weight.sum()

    for seed in (0, 0, 1):
        seen.append([])
        diagonal_fisher(loss, [weight], data, 5, seed)
    assert [len(images) for images in seen] == [5, 5, 5]
    assert seen[0] == seen[1] != seen[2]
