"""A task's training set as a method sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clbench.core.data import (
    Batch,
    LabelledImages,
    ReferencePairs,
    ReferenceStream,
    SequenceData,
)
from clbench.core.errors import ClbenchError
from clbench.core.settings import Augmentation

DIGITS = 16
"""Hex digits of the hash of a split."""


@dataclass(frozen=True)
class ImagesOfTask:
    """Some training images of a task; see `clbench.core.data.LabelledImages`.

    Attributes:
        sequence: the images of all tasks.
        task: index of the task.
        tokenize: turns texts into token ids on the model's device.
        augmentation: that of the training.
        chosen: which images, in order; None means all.
    """

    sequence: SequenceData
    task: int
    tokenize: Callable[[Sequence[str]], Tensor]
    augmentation: Augmentation
    chosen: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.sequence.train_set(self.task) if self.chosen is None else self.chosen)

    def batches(
        self, batch_size: int, *, seed: int | None = None, augmented: bool = False
    ) -> Iterator[Batch]:
        """See `LabelledImages.batches`."""
        classes = self.sequence.benchmark.tasks[self.task].classes
        prompts = self.tokenize(classes.training_prompts)
        passed = self.sequence.train_pass(
            self.task,
            batch_size=batch_size,
            seed=seed,
            augmentation=self.augmentation if augmented else "none",
            chosen=self.chosen,
        )
        for images, labels in passed:
            yield Batch(images, labels, prompts).to(prompts.device)


class MethodData:
    """See `clbench.core.data.TaskData`.

    Args:
        sequence: the images of all tasks.
        task: index of the current one.
        tokenize: turns texts into token ids on the model's device.
        augmentation: that of the training.
        needs: what the method declares to need.

    Attributes:
        chosen: the images that are trained on; None means all.
        reference_used: where reference data came from, if the method asked for any.
        held_out: hash of the validation split, if the method asked for one.
    """

    def __init__(
        self,
        sequence: SequenceData,
        task: int,
        tokenize: Callable[[Sequence[str]], Tensor],
        augmentation: Augmentation,
        needs: frozenset[str],
    ) -> None:
        self._whole = ImagesOfTask(sequence, task, tokenize, augmentation)
        self._needs = needs
        self._split: tuple[float, int] | None = None
        self._begun = False
        self.chosen: tuple[int, ...] | None = None
        self.reference_used: str | None = None
        self.held_out: str | None = None

    def __len__(self) -> int:
        return len(self._part(self.chosen))

    def batches(
        self, batch_size: int, *, seed: int | None = None, augmented: bool = False
    ) -> Iterator[Batch]:
        """One pass over the images that are trained on."""
        return self._part(self.chosen).batches(batch_size, seed=seed, augmented=augmented)

    def training_begins(self) -> None:
        """From now on nothing can be held out any more."""
        self._begun = True

    def validation(self, share: float, seed: int = 0) -> LabelledImages:
        """See `TaskData.validation`."""
        total = len(self._whole)
        if self._split not in (None, (share, seed)):
            raise ClbenchError("a task has one validation split: ask for the same share and seed")
        if self._begun and self._split is None:
            raise ClbenchError("a validation split must be asked for in begin_task")
        count = max(1, round(share * total))
        if not 0 < share < 1 or count >= total:
            raise ClbenchError(
                f"a validation split of {share:g} of {total} training images leaves nothing to "
                "train on"
                if share > 0
                else f"a validation split needs a share > 0, got {share:g}"
            )
        generator = torch.Generator().manual_seed(seed * 10_007 + self._whole.task)
        order = torch.randperm(total, generator=generator).tolist()
        held, kept = sorted(order[:count]), sorted(order[count:])
        self._split, self.chosen = (share, seed), tuple(kept)
        images = self._whole.sequence.train_set(self._whole.task).digest()
        text = json.dumps([images, held])
        self.held_out = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
        return self._part(tuple(held))

    def of_task(self, index: int) -> LabelledImages:
        """See `TaskData.of_task`."""
        if "all-data" not in self._needs:
            raise ClbenchError(
                "data of other tasks are for methods that declare needs = {'all-data'}"
            )
        whole = self._whole
        if index == whole.task:  # without what is held out
            return self._part(self.chosen)
        return ImagesOfTask(whole.sequence, index, whole.tokenize, whole.augmentation)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """Pairs for distillation; what was used is noted in the result."""
        self._require("reference-images", source)
        sequence, task = self._whole.sequence, self._whole.task
        pairs = sequence.reference_pairs(task, source, count, seed, self.chosen)
        self.reference_used = pairs.source
        return pairs

    def reference_stream(self, images: str, texts: str, seed: int) -> ReferenceStream:
        """Images and unpaired texts; what was used is noted in the result."""
        self._require("reference-images", images)
        self._require("reference-texts", texts)
        sequence, task = self._whole.sequence, self._whole.task
        stream = sequence.reference_stream(task, images, texts, seed, self.chosen)
        self.reference_used = stream.source
        return stream

    def _require(self, need: str, source: str) -> None:
        """Refuse data from elsewhere that are not declared, and so not shown in tables."""
        if source != "task" and need not in self._needs:
            raise ClbenchError(
                f"reference data of {source!r} are for methods that declare needs = {{{need!r}}}"
            )

    def _part(self, chosen: tuple[int, ...] | None) -> ImagesOfTask:
        whole = self._whole
        return ImagesOfTask(whole.sequence, whole.task, whole.tokenize, whole.augmentation, chosen)
