"""Golden files of methods that train in subspaces: their batches, and what is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from clbench.core.data import Batch


class GoldenData:
    """The training batches of a golden task, in their order."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        prompts = tensors["tokens"].long()
        self.batch_list = [
            Batch(images.float(), labels.long(), prompts)
            for images, labels in zip(tensors["images"], tensors["labels"], strict=True)
        ]

    def batches(self, _: int) -> Iterator[Batch]:
        """All of them, whatever size is asked for."""
        return iter(self.batch_list)


def projector(basis: Tensor) -> Tensor:
    """What of a basis is defined: the space it spans."""
    return basis @ basis.T


def assert_near(found: Tensor, expected: Tensor, atol: float) -> None:
    """Equal up to an absolute difference."""
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def assert_near_in_norm(found: Tensor, expected: Tensor, share: float) -> None:
    """The difference is at most a share of what is expected, both by their norms."""
    norm = expected.norm()
    assert norm > 0
    torch.testing.assert_close((found - expected).norm() / norm, norm * 0, atol=share, rtol=0)
