"""The interface of probes: what is measured about a model at every row besides its accuracy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from clbench.core.data import ImageSet
from clbench.core.task import Benchmark, ClassTexts

if TYPE_CHECKING:  # types only: core imports nothing from above at run time
    from clbench.clip.model import CLIP

Extra = Literal["general", "captioned"]
"""Data that a probe may ask for besides the tasks' own."""


@dataclass(frozen=True, eq=False)
class GeneralSet:
    """Images of classes that no task trains.

    Attributes:
        name: short, for tables.
        classes: the classes that images are scored among, with ids that no task's class has.
        images: the images; labels count within `classes`.
    """

    name: str
    classes: ClassTexts
    images: ImageSet


@dataclass(frozen=True, eq=False)
class CaptionedSet:
    """Images with captions, for retrieval.

    Attributes:
        name: short, for tables.
        images: the images; labels mean nothing.
        captions: the captions.
        owners: the image that each caption describes.
    """

    name: str
    images: ImageSet
    captions: tuple[str, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ProbeData:
    """What probes look at besides the tasks' test images.

    Attributes:
        general: images that no task trains.
        captioned: images with captions.
        digests: per kind, name of a set to a hash of its images and texts, for the result.
    """

    general: tuple[GeneralSet, ...] = ()
    captioned: tuple[CaptionedSet, ...] = ()
    digests: Mapping[Extra, Mapping[str, str]] = field(default_factory=dict)

    def digests_of(self, kinds: Collection[Extra]) -> dict[str, str]:
        """The hashes of all sets of some kinds."""
        return {k: v for kind in kinds for k, v in self.digests.get(kind, {}).items()}


class Look:
    """What a probe sees of a run at one moment: the model, the method's answers, and images.

    Whatever a probe computes through this object is computed as in tests: without gradients, in
    the precision of the run. Features are encoded once for all probes of a row.

    Args:
        model: the CLIP, in evaluation mode; probes must not change it.
        benchmark: the tasks.
        learned: number of tasks learned.
        test_sets: test images of every task.
        data: images and texts besides the tasks' own.
        classify: scores images among candidates, as in tests.
        answers_with_model: whether that is what the model alone does.
        batch_size: images at a time.
        precision: opens a context in the precision of the run.
        check: called between batches; raises where the run is to stop.
    """

    def __init__(  # noqa: PLR0913 - all that a probe may see, once
        self,
        model: CLIP,
        benchmark: Benchmark,
        learned: int,
        *,
        test_sets: Sequence[ImageSet],
        data: ProbeData,
        classify: Callable[[Tensor, ClassTexts], Tensor],
        answers_with_model: bool,
        batch_size: int,
        precision: Callable[[], AbstractContextManager[object]],
        check: Callable[[], None],
    ) -> None:
        self.model = model
        self.benchmark = benchmark
        self.learned = learned
        self.test_sets = test_sets
        self.data = data
        self.answers_with_model = answers_with_model
        self.precision = precision
        self._classify = classify
        self._batch_size = batch_size
        self._check = check
        self._features: dict[tuple[int, int | None], tuple[Tensor, Tensor]] = {}

    def batches(self, images: ImageSet, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of a set in its order, or of `most` of them, evenly spaced."""
        chosen = spaced(len(images), most)
        for start in range(0, len(chosen), self._batch_size):
            self._check()
            yield images.__getitems__(chosen[start : start + self._batch_size])

    def features(self, images: ImageSet, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Unit-length image features ``(N, D)`` and labels ``(N,)``, on the CPU."""
        key = id(images), most
        if key not in self._features:
            features, labels = [], []
            for batch, answers in self.batches(images, most):
                with self.precision():
                    features.append(self.model.encode_image(batch).cpu())
                labels.append(answers.cpu())
            self._features[key] = torch.cat(features), torch.cat(labels)
        return self._features[key]

    def class_features(self, classes: ClassTexts) -> Tensor:
        """Unit-length text features ``(C, D)`` of classes as in tests, on the CPU."""
        with self.precision():
            return self.model.class_features(classes).cpu()

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit-length features ``(N, D)`` of any texts, on the CPU."""
        parts = []
        for start in range(0, len(texts), self._batch_size):
            self._check()
            with self.precision():
                tokens = self.model.tokenize(texts[start : start + self._batch_size])
                parts.append(self.model.encode_text(tokens).cpu())
        return torch.cat(parts)

    def logits(
        self, images: ImageSet, candidates: Sequence[ClassTexts]
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The method's scores of all images among each list of candidates, batch by batch.

        Yields:
            ``(B, C)`` float32 per list of candidates, and labels ``(B,)``, on the CPU.
        """
        if self.answers_with_model:
            features, labels = self.features(images)
            scale = self.model.logit_scale.detach().exp().cpu()
            yield [scale * features @ self.class_features(c).T for c in candidates], labels
            return
        for batch, labels in self.batches(images):
            with self.precision():
                scores = [self._classify(batch, among).float().cpu() for among in candidates]
            yield scores, labels.cpu()


class Probe(ABC):
    """One kind of measurement, made at every row of the accuracy matrix.

    The engine makes an instance per run without arguments and calls `start` once with the model as
    it was before the run (again where the run resumes), `before_task` before every task, and
    `measure` at every row, row 0 before training included. A probe may keep what it likes in
    attributes; it must leave the model as it is, which is checked. Random generators are put back
    after every call.
    """

    name: ClassVar[str]
    """As in ``--probe``, tables and result files."""
    needs: ClassVar[frozenset[Extra]] = frozenset()
    """Data besides the tasks' own that the probe cannot do without."""
    wants: ClassVar[frozenset[Extra]] = frozenset()
    """The same of data that it looks at where they are there."""

    def start(self, look: Look) -> None:  # noqa: B027 - most have no use for it
        """See the model before the run."""

    def before_task(self, look: Look) -> None:  # noqa: B027
        """See the model before the task with the index ``look.learned``."""

    @abstractmethod
    def measure(self, look: Look) -> Mapping[str, float | None]:
        """What the probe finds after ``look.learned`` tasks.

        Returns:
            Name to number; None, or no entry, where nothing is defined. Names with a slash
            (``ece/digits``) are details, which tables and figures leave out.
        """


def spaced(count: int, most: int | None) -> Sequence[int]:
    """All of `count` indices, or `most` of them, evenly spaced.

    >>> list(spaced(10, 4)), list(spaced(3, 4))
    ([0, 2, 5, 7], [0, 1, 2])
    """
    if most is None or count <= most:
        return range(count)
    return [i * count // most for i in range(most)]
