"""Reference pairs under a teacher, the material of distillation."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from clbench.clip.layers.together import is_pure
from clbench.clip.shortcuts.constancy import bit_digests, fingerprint, lasting
from clbench.clip.shortcuts.known_features import KnownFeatures
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
    """Image-caption pairs that a teacher, a frozen copy of the model, scores once.

    One pass over an image replaces a pass in every step that draws it; images of a source that
    later tasks draw from again are remembered between tasks (their features, not the images).
    Scores belong to the teacher's state: whoever changes the teacher, by whatever way, gets new
    ones with the next batch. Pairs and remembered features are part of the state dict.

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
        self._source = ""
        self._scored_by: str | None = None

    @property
    def tokens(self) -> Tensor:
        """``(K, L)``: the tokenised captions of all pairs."""
        return self.pairs["tokens"]

    def set_pairs(self, pairs: ReferencePairs) -> None:
        """Take other pairs and let the teacher score all images against all captions."""
        device = self.teacher.device
        self._source = pairs.source
        self.pairs = {
            "images": pairs.images.to(device),
            "labels": pairs.labels.to(device),
            "tokens": self.teacher.tokenize(pairs.captions),
        }
        self._score()

    def sample(self, count: int, generator: torch.Generator) -> ReferenceBatch:
        """Draw pairs without repetition, all of them if there are fewer than `count`."""
        if self._scored_by is None or self._scored_by != self._teacher_state():
            self._score()
        images, labels = self.pairs["images"], self.pairs["labels"]
        chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
        captions, position = torch.unique(labels[chosen], return_inverse=True)
        logits = self.pairs["logits"][chosen][:, labels[chosen]]
        return ReferenceBatch(images[chosen], captions, position, logits)

    def get_extra_state(self) -> dict[str, Any]:
        """The pairs, the teacher's scores, and the teacher's state they belong to."""
        return {**self.pairs, "source": self._source, "scored_by": self._scored_by}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put the pairs back."""
        self._source, self._scored_by = state["source"], state["scored_by"]
        self.pairs = {
            name: value.to(self.teacher.device)
            for name, value in state.items()
            if isinstance(value, Tensor)
        }

    @torch.no_grad()
    def _score(self) -> None:
        """Logits of all images and captions under the teacher as it is now."""
        state, teacher = self._teacher_state(), self.teacher
        images = self.pairs["images"]
        with torch.autocast(teacher.device.type, enabled=False):  # the same in every step
            texts = torch.split(self.pairs["tokens"], CHUNK)
            captions = torch.cat([teacher.encode_text(part) for part in texts])
            if self._source == "task":  # its images will not come again
                features = self._encode(images)
            else:
                features = self.known.features(images, self._encode, state)
            scores = teacher.logit_scale.exp() * features.to(teacher.device) @ captions.T
        self.pairs["logits"], self._scored_by = scores, state

    def _teacher_state(self) -> str | None:
        """Changes whenever the teacher does; None if that cannot be seen."""
        teacher = self.teacher
        if not is_pure(teacher):
            return None
        network = fingerprint(teacher.network)
        scaling = bit_digests([teacher.mean, teacher.std])
        return None if network is None or scaling is None else lasting((network, scaling))

    def _encode(self, images: Tensor) -> Tensor:
        parts = [self.teacher.encode_image(chunk) for chunk in torch.split(images, CHUNK)]
        return torch.cat(parts).cpu()
