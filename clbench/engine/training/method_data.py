"""A task's training set as a method sees it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from clbench.core.data import Batch, ReferencePairs, SequenceData


class MethodData:
    """See `clbench.core.data.TaskData`.

    Attributes:
        reference_used: the pairs that the method asked for last, if any.
    """

    def __init__(self, sequence: SequenceData, task: int, prompts: Tensor) -> None:
        self._sequence = sequence
        self._task = task
        self._prompts = prompts
        self.reference_used: ReferencePairs | None = None

    def __len__(self) -> int:
        return len(self._sequence.train_set(self._task))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """One pass over the training set in fixed order."""
        images = self._sequence.train_set(self._task)
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            pixels, labels = images.__getitems__(range(start, stop))
            yield Batch(pixels, labels, self._prompts).to(self._prompts.device)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """Pairs for distillation; what was used is noted in the result."""
        pairs = self._sequence.reference_pairs(self._task, source, count, seed)
        self.reference_used = pairs
        return pairs
