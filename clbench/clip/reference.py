"""Reference pairs under a frozen teacher, the material of distillation."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from clbench.core.data import ReferencePairs

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK = 256


class ReferenceBatch(NamedTuple):
    """N image-caption pairs of a step.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        tokens: ``(K, L)`` the distinct captions among them.
        labels: ``(N,)`` index of each image's caption in `tokens`.
        teacher_logits: ``(N, N)`` the teacher's similarities of these images and captions.
    """

    images: Tensor
    tokens: Tensor
    labels: Tensor
    teacher_logits: Tensor


class Reference(nn.Module):
    """Image-caption pairs that a frozen copy of the model scores once per task.

    The images are fixed, so one pass of the teacher replaces a pass in every step. While pairs
    are set, they are part of the state dict.

    Attributes:
        teacher: the frozen copy.
    """

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(model).requires_grad_(False).eval()
        self.clear()

    def clear(self) -> None:
        """Drop the pairs."""
        self.pairs: dict[str, Tensor] = {}

    @torch.no_grad()
    def set_pairs(self, pairs: ReferencePairs) -> None:
        """Take other pairs and let the teacher score all images against all captions."""
        device = self.teacher.device
        tokens = self.teacher.tokenize(pairs.captions)
        captions = torch.cat([self.teacher.encode_text(t) for t in torch.split(tokens, CHUNK)])
        chunks = torch.split(pairs.images, CHUNK)
        logits = [self.teacher.logits(images, captions) for images in chunks]
        self.pairs = {
            "images": pairs.images.to(device),
            "labels": pairs.labels.to(device),
            "tokens": tokens,
            "logits": torch.cat(logits),
        }

    def sample(self, count: int, generator: torch.Generator) -> ReferenceBatch:
        """Draw pairs without repetition, all of them if there are fewer than `count`."""
        images, labels = self.pairs["images"], self.pairs["labels"]
        chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        captions, position = torch.unique(labels[chosen], return_inverse=True)
        logits = self.pairs["logits"][chosen][:, labels[chosen]]
        return ReferenceBatch(images[chosen], self.pairs["tokens"][captions], position, logits)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The pairs and the teacher's scores."""
        return self.pairs

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Put the pairs back."""
        self.pairs = {name: value.to(self.teacher.device) for name, value in state.items()}
