"""A tiny CLIP, and tasks that can be told apart, for trying methods in moments of CPU time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import open_clip
import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import Batch, LabelledImages, ReferencePairs, ReferenceStream
from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task

CONTEXT = 20
VOCABULARY = 512
IMAGE_SIZE = 32


class WordTokenizer:
    """One token per word, by a checksum; any text has tokens and nothing is loaded."""

    vocab_size = VOCABULARY
    sot_token_id = VOCABULARY - 2
    eot_token_id = VOCABULARY - 1

    def __init__(self, context_length: int = CONTEXT) -> None:
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> Tensor:
        """Padded token ids ``(N, L)``."""
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = [1 + zlib.crc32(w.encode()) % (VOCABULARY - 3) for w in text.lower().split()]
            ids = [self.sot_token_id, *words[: self.context_length - 2], self.eot_token_id]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


def make_clip(seed: int = 0) -> CLIP:
    """A random CLIP of two small blocks per encoder, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={
                "image_size": IMAGE_SIZE,
                "patch_size": 16,
                "width": 64,
                "layers": 2,
                "head_width": 32,
            },
            text_cfg={
                "context_length": CONTEXT,
                "vocab_size": VOCABULARY,
                "width": 64,
                "heads": 2,
                "layers": 2,
            },
        )
    return CLIP(network, WordTokenizer(), [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], "tiny")


@dataclass
class ToyData:
    """A training set in memory that offers its own images as reference data.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)``.
        prompts: ``(C, L)`` tokens.
        captions: C training prompts.
        others: the training sets of all tasks of the sequence, by index.
        used: what was asked for besides the task's own data, as `Method.needs` calls it.
    """

    images: Tensor
    labels: Tensor
    prompts: Tensor
    captions: tuple[str, ...]
    others: list[ToyData] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> ToyData:
        """The same data for a model on another device; images stay where they are."""
        return ToyData(self.images, self.labels, self.prompts.to(device), self.captions)

    def batches(
        self, batch_size: int, *, seed: int | None = None, augmented: bool = False
    ) -> Iterator[Batch]:
        """See `LabelledImages.batches`; a batch that is augmented is mirrored."""
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(batch_size):
            images = self.images[chosen].flip(-1) if augmented else self.images[chosen]
            yield Batch(images, self.labels[chosen], self.prompts).to(self.prompts.device)

    def validation(self, share: float, seed: int = 0) -> LabelledImages:
        """See `TaskData.validation`; here the images stay part of the training set."""
        count = max(1, round(share * len(self)))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return ToyData(self.images[order], self.labels[order], self.prompts, self.captions)

    def of_task(self, index: int) -> LabelledImages:
        """See `TaskData.of_task`."""
        self.used.add("all-data")
        return self.others[index]

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """See `TaskData.reference_pairs`; the images of the task, whatever the source."""
        self.used.add("reference-images")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return ReferencePairs(self.images[order], self.captions, self.labels[order], source)

    def reference_stream(self, images: str, texts: str, seed: int) -> ReferenceStream:
        """See `TaskData.reference_stream`; images and captions of the task."""
        self.used |= {"reference-images", "reference-texts"}
        source = images if images == texts else f"{images}, texts: {texts}"
        return ToyStream(self.images, self.captions, seed, source)


@dataclass(frozen=True)
class ToyStream:
    """See `clbench.core.data.ReferenceStream`."""

    pool: Tensor
    captions: tuple[str, ...]
    seed: int
    source: str

    @property
    def nbytes(self) -> int:
        """Bytes of all images and texts if they do not count as the task's own."""
        return 0 if self.source == "task" else self.pool.numel() + sum(map(len, self.captions))

    @property
    def all_texts(self) -> tuple[str, ...]:
        """Every text once."""
        return self.captions

    def images(self, step: int, count: int) -> Tensor:
        """The images of a step."""
        return self.pool[self._drawn(step, count, len(self.pool))]

    def texts(self, step: int, count: int) -> tuple[str, ...]:
        """The texts of a step."""
        return tuple(self.captions[i] for i in self._drawn(step, count, len(self.captions)))

    def _drawn(self, step: int, count: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + step)
        return torch.randint(size, (count,), generator=generator)


def make_tasks(*classes: int, size: int = 24) -> list[tuple[Task, ToyData]]:
    """A sequence of tasks with so many classes each, numbered as a benchmark numbers them.

    Classes are fixed random patterns under weak noise; every task has its own patterns, class
    names and templates.
    """
    made = [_make_task(index, count, size) for index, count in enumerate(classes)]
    specs = tuple(task for task, _ in made)
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "toy", specs)
    sets = [data for _, data in made]
    for data in sets:
        data.others = sets
    return list(zip(benchmark.tasks, sets, strict=True))


def make_task(index: int, *, classes: int = 3, size: int = 24) -> tuple[Task, ToyData]:
    """One such task by itself."""
    return _make_task(index, classes, size)


class UndeclaredNeedError(ClbenchError):
    """A method asked for data that it does not declare to need."""


class GuardedData(ToyData):
    """A training set that refuses what is not declared."""

    def __init__(self, data: ToyData, needs: frozenset[str]) -> None:
        super().__init__(data.images, data.labels, data.prompts, data.captions, data.others)
        self._needs = needs

    def of_task(self, index: int) -> LabelledImages:
        """Refused unless ``all-data`` is declared."""
        self._require("all-data")
        return super().of_task(index)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """Refused from elsewhere than the task unless ``reference-images`` is declared."""
        self._require("reference-images", source)
        return super().reference_pairs(source, count, seed)

    def reference_stream(self, images: str, texts: str, seed: int) -> ReferenceStream:
        """Refused from elsewhere than the task unless it is declared."""
        self._require("reference-images", images)
        self._require("reference-texts", texts)
        return super().reference_stream(images, texts, seed)

    def _require(self, need: str, source: str = "elsewhere") -> None:
        if source != "task" and need not in self._needs:
            raise UndeclaredNeedError(f"asked for {need} without declaring the need")


def _make_task(index: int, classes: int, size: int) -> tuple[Task, ToyData]:
    random = torch.Generator().manual_seed(1000 + index)
    names = [f"kind{index}{chr(97 + c)}" for c in range(classes)]
    texts = ClassTexts.from_templates(names, [f"a drawing of a {{}} {index}.", "the {}."])
    patterns = torch.randint(30, 226, (classes, 3, 4, 4), generator=random)
    patterns = patterns.repeat_interleave(IMAGE_SIZE // 4, 2).repeat_interleave(IMAGE_SIZE // 4, 3)
    labels = torch.arange(size) % classes
    noise = torch.randint(-20, 21, (size, 3, IMAGE_SIZE, IMAGE_SIZE), generator=random)
    images = (patterns[labels] + noise).to(torch.uint8)
    tokens = WordTokenizer()(list(texts.training_prompts))
    data = ToyData(images, labels, tokens, texts.training_prompts)
    return Task(f"task{index}", texts), data
