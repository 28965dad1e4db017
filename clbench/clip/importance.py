"""How much each weight matters for what was learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor

from clbench.core.data import Batch, LabelledImages


def diagonal_fisher(
    loss: Callable[[Batch], Tensor],
    weights: Sequence[Tensor],
    images: LabelledImages,
    count: int,
    seed: int,
) -> list[Tensor]:
    """Diagonal of the empirical Fisher information: ``mean_i (d loss_i / d theta)^2``.

    The gradient of every image is squared by itself; the square of a batch's mean gradient would
    be smaller by about the size of the batch.

    Args:
        loss: of a batch of one image.
        weights: theta, tensors that require grad; no gradient is left on them.
        images: a training set.
        count: images that are looked at, all if there are fewer.
        seed: which.

    Returns:
        A tensor in the shape of each weight, zero where the loss does not depend on it.
    """
    totals = [torch.zeros_like(weight) for weight in weights]
    seen = 0
    for batch in islice(images.batches(1, seed=seed), count):
        gradients = torch.autograd.grad(loss(batch), weights, allow_unused=True)
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
        seen += 1
    return [total / max(1, seen) for total in totals]
