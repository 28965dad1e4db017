"""What a layer remembers of the features it has seen."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declare
from clbench.clip.shortcuts.constancy import bit_digests
from clbench.clip.subspaces.directions import (
    FeatureSplit,
    gram_null_bases,
    project,
)
from clbench.clip.subspaces.gram import gram_matrix


@declare(ignored=("_split",))
class FeatureMemory(nn.Module):
    """Gram matrix of a layer's input features, and the null space that it leaves.

    Features are streamed: `add` keeps sums only, and `commit` ends a pass over a data set.

    Attributes:
        gram: ``(d, d)``, the sum over all passes.
        rho: share of the features' energy that the null space may hold.
    """

    gram: Tensor

    def __init__(self, dim: int, rho: float) -> None:
        super().__init__()
        self.rho = rho
        self.register_buffer("gram", torch.zeros(dim, dim))
        self._sum: Tensor | None = None
        self._split: tuple[Hashable, FeatureSplit] | None = None

    @torch.no_grad()
    def add(self, features: Tensor, batch: int) -> None:
        """Add ``X^T X / ||X^T X||_F`` for the features X of each `batch` inputs.

        Args:
            features: ``(N, ..., d)`` of N inputs.
            batch: inputs that are scaled together.
        """
        for part in features.split(batch):
            x = part.flatten(0, -2).to(self.gram.dtype)
            with torch.autocast(x.device.type, enabled=False):  # squares need full precision
                gram = gram_matrix(x)
            gram /= gram.norm()
            self._sum = gram if self._sum is None else self._sum.add_(gram)

    @torch.no_grad()
    def commit(self, *, rescale: bool = False) -> None:
        """Add the pass, scaled to unit Frobenius norm, to the memory.

        Args:
            rescale: scale the memory to unit norm first, so that older passes fade.
        """
        if self._sum is None:
            return
        if rescale and self.gram.any():
            self.gram /= self.gram.norm()
        self.gram += self._sum / self._sum.norm()
        self._sum = None

    def split(self) -> FeatureSplit:
        """Kept and null directions, computed once per content of the memory."""
        self.split_all([self])
        assert self._split is not None
        return self._split[1]

    @staticmethod
    def split_all(memories: Sequence[FeatureMemory]) -> None:
        """Compute `split` of several memories with the same `rho`, several at a time."""
        states = {memory: (memory.rho, bit_digests([memory.gram])) for memory in memories}
        stale = [m for m in memories if m._split is None or m._split[0] != states[m]]
        for rho in {memory.rho for memory in stale}:
            chosen = [memory for memory in stale if memory.rho == rho]
            splits = gram_null_bases([memory.gram for memory in chosen], rho)
            for memory, split in zip(chosen, splits, strict=True):
                memory._split = states[memory], split

    def project(self, rows: Tensor) -> Tensor:
        """Project the rows of ``(n, d)`` onto the null space."""
        return project(rows, self.split())


@contextmanager
def collecting(
    inputs: Iterable[tuple[nn.Module, FeatureMemory]],
    class_token: tuple[nn.Module, FeatureMemory],
    batch: int,
) -> Iterator[None]:
    """While open, every forward pass adds features to memories.

    Args:
        inputs: layers whose input, all tokens, goes into the memory beside them.
        class_token: a layer whose output at the first token goes into the memory beside it.
        batch: see `FeatureMemory.add`.
    """

    def from_input(memory: FeatureMemory) -> Any:
        return lambda layer, args: memory.add(args[0], batch)

    def from_class_token(layer: nn.Module, args: Any, output: Tensor) -> None:
        # open_clip pools either before or after the last norm; after pooling one token is left.
        class_token[1].add(output if output.dim() == 2 else output[:, 0], batch)

    handles = [layer.register_forward_pre_hook(from_input(memory)) for layer, memory in inputs]
    handles.append(class_token[0].register_forward_hook(from_class_token))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
