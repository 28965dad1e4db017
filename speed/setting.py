"""Models and inputs of the benchmarks: random weights, random images, real class names."""

from __future__ import annotations

from dataclasses import dataclass

import open_clip
import torch
from torch import Tensor, nn

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.settings import BackboneSettings
from clbench.core.task import ClassTexts, Task
from clbench.testing.toys import ToyData, make_clip

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


def core_of(adapter: LowRankLinear) -> nn.Parameter:
    """M of an update that has one."""
    assert adapter.core is not None
    return adapter.core


class RandomTask(ToyData):
    """A task of random images, as methods receive it.

    Args:
        model: the model whose image size and tokenizer count.
        texts: the classes.
        images: ``(N, 3, H, W)`` uint8.
    """

    def __init__(self, model: CLIP, texts: ClassTexts, images: Tensor) -> None:
        captions = texts.training_prompts
        labels = torch.arange(len(images)) % len(texts)
        super().__init__(images, labels, model.tokenize(captions), captions)
        self.task = Task("random", texts)
