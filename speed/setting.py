"""Models and inputs of the benchmarks: random weights, random images, real class names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import open_clip
import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.data import Batch, ReferencePairs
from clbench.core.settings import BackboneSettings
from clbench.core.task import ClassTexts, Task
from clbench.testing.toys import make_clip

PROMPT = "a photo of a {}."
TINY = "tiny"
"""The name of a model of two small blocks per encoder, for trying a program."""


@dataclass(frozen=True)
class Size:
    """How large a benchmark is; the defaults are those of the published experiments.

    Attributes:
        model: architecture.
        batch: images per step.
        reference: reference pairs per step.
        rank: rank of low-rank updates.
    """

    model: str = "ViT-B-16-quickgelu"
    batch: int = 16
    reference: int = 32
    rank: int = 128


def build_model(size: Size, device: torch.device) -> CLIP:
    """A frozen CLIP with random weights, the same in every process."""
    if size.model == TINY:
        model = make_clip()
    else:
        model = load_clip(BackboneSettings(model=size.model, weights="random"))
    return model.requires_grad_(False).to(device)


def class_texts(count: int) -> ClassTexts:
    """The first names of ImageNet's classes with one prompt each; numbered when they run out."""
    names = list(dict.fromkeys(open_clip.IMAGENET_CLASSNAMES))
    rounds = (divmod(i, len(names)) for i in range(count))
    chosen = [names[i] + (f" {turn}" if turn else "") for turn, i in rounds]
    return ClassTexts.from_templates(chosen, [PROMPT])


def random_images(model: CLIP, count: int, seed: int) -> Tensor:
    """``(count, 3, H, W)`` uint8: smooth random patterns, so that images differ in features."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    side = model.image_size
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = 0.1 * torch.randn(smooth.shape, generator=generator)
    return (255 * (smooth + noise)).clamp(0, 255).to(torch.uint8)


@dataclass
class RandomTask:
    """A task of random images, as methods receive it.

    Attributes:
        model: the model whose image size and tokenizer count.
        texts: the classes.
        images: ``(N, 3, H, W)`` uint8.
    """

    model: CLIP
    texts: ClassTexts
    images: Tensor

    def __post_init__(self) -> None:
        self.task = Task("random", self.texts)
        self.captions = self.texts.training_prompts
        self.prompts = self.model.tokenize(self.captions)
        self.labels = torch.arange(len(self.images)) % len(self.texts)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """One pass in fixed order."""
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            batch = Batch(self.images[chosen], self.labels[chosen], self.prompts)
            yield batch.to(self.model.device)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        """The images themselves with their captions."""
        return ReferencePairs(self.images[:count], self.captions, self.labels[:count], "benchmark")
