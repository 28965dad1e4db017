"""Reference pairs under a frozen teacher, the material of distillation."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from clbench.clip.known_features import KnownFeatures
from clbench.core.data import ReferencePairs

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK = 256


class ReferenceBatch(NamedTuple):
    """N image-caption pairs of a step.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        captions: ``(K,)`` which of `Reference.tokens` are the distinct captions among them.
        labels: ``(N,)`` index of each image's caption in `captions`.
        teacher_logits: ``(N, N)`` the teacher's similarities of these images and captions.
    """

    images: Tensor
    captions: Tensor
    labels: Tensor
    teacher_logits: Tensor


class Reference(nn.Module):
    """Image-caption pairs that a frozen copy of the model scores once per run.

    The teacher never changes, so one pass over an image replaces a pass in every step that draws
    it; images of a source that later tasks draw from again are remembered between tasks (their
    features, not the images). Pairs and remembered features are part of the state dict.

    Attributes:
        teacher: the frozen copy.
    """

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(model).requires_grad_(False).eval()
        self.known = KnownFeatures()
        self.clear()

    def clear(self) -> None:
        """Drop the pairs."""
        self.pairs: dict[str, Tensor] = {}

    @property
    def tokens(self) -> Tensor:
        """``(K, L)``: the tokenised captions of all pairs."""
        return self.pairs["tokens"]

    @torch.no_grad()
    def set_pairs(self, pairs: ReferencePairs) -> None:
        """Take other pairs and let the teacher score all images against all captions."""
        device = self.teacher.device
        tokens = self.teacher.tokenize(pairs.captions)
        captions = torch.cat([self.teacher.encode_text(t) for t in torch.split(tokens, CHUNK)])
        if pairs.source == "task":  # its images will not come again
            images = self._encode(pairs.images)
        else:
            images = self.known.features(pairs.images, self._encode)
        self.pairs = {
            "images": pairs.images.to(device),
            "labels": pairs.labels.to(device),
            "tokens": tokens,
            "logits": self.teacher.logit_scale.exp() * images.to(device) @ captions.T,
        }

    def sample(self, count: int, generator: torch.Generator) -> ReferenceBatch:
        """Draw pairs without repetition, all of them if there are fewer than `count`."""
        images, labels = self.pairs["images"], self.pairs["labels"]
        chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        captions, position = torch.unique(labels[chosen], return_inverse=True)
        logits = self.pairs["logits"][chosen][:, labels[chosen]]
        return ReferenceBatch(images[chosen], captions, position, logits)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The pairs and the teacher's scores."""
        return self.pairs

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Put the pairs back."""
        self.pairs = {name: value.to(self.teacher.device) for name, value in state.items()}

    def _encode(self, images: Tensor) -> Tensor:
        parts = [self.teacher.encode_image(chunk) for chunk in torch.split(images, CHUNK)]
        return torch.cat(parts).cpu()
