"""Reference data under a teacher, the material of distillation: scored pairs, and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from clbench.clip.layers.together import is_pure
from clbench.clip.shortcuts.constancy import bit_digests, fingerprint, lasting
from clbench.clip.shortcuts.known_features import KnownFeatures
from clbench.clip.teacher import encoded_texts, frozen_copy
from clbench.core.data import ReferencePairs, ReferenceStream

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK = 256


class ReferenceBatch(NamedTuple):
    """N image-caption pairs of a step.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        captions: ``(K,)`` which of `ScoredPairs.tokens` are the distinct captions among them.
        labels: ``(N,)`` index of each image's caption in `captions`.
        teacher_logits: ``(N, N)`` the teacher's similarities of these images and captions.
    """

    images: Tensor
    captions: Tensor
    labels: Tensor
    teacher_logits: Tensor


class ScoredPairs(nn.Module):
    """Image-caption pairs with a teacher's scores of all images and captions.

    Batches take each pair once, in the order of the pairs, pass after pass; the last batch of a
    pass may be smaller. Pairs, scores and position are part of the state dict.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.clear()

    def clear(self) -> None:
        """Drop the pairs."""
        self.pairs: dict[str, Tensor] = {}
        self.position = 0

    @property
    def tokens(self) -> Tensor:
        """``(K, L)``: the tokenised captions of all pairs."""
        return self.pairs["tokens"]

    def set_pairs(self, pairs: ReferencePairs, teacher: CLIP) -> None:
        """Take other pairs and let the teacher, as it is now, score them."""
        self.place(pairs, teacher)
        self.score(teacher, lambda images: encoded_images(teacher, images))

    def place(self, pairs: ReferencePairs, teacher: CLIP) -> None:
        """Take other pairs, not yet scored."""
        self.position = 0
        self.pairs = {
            "images": pairs.images.to(teacher.device),
            "labels": pairs.labels.to(teacher.device),
            "tokens": teacher.tokenize(pairs.captions),
        }

    @torch.no_grad()
    def score(self, teacher: CLIP, encode: Callable[[Tensor], Tensor]) -> None:
        """Let a teacher score the pairs; `encode` gives its features of images."""
        with torch.autocast(teacher.device.type, enabled=False):  # the same in every step
            captions = encoded_texts(teacher, self.tokens)
            features = encode(self.pairs["images"]).to(teacher.device)
            self.pairs["logits"] = teacher.logit_scale.exp() * features @ captions.T

    def take(self, count: int) -> ReferenceBatch:
        """The next `count` pairs, or what is left of the pass."""
        images, labels = self.pairs["images"], self.pairs["labels"]
        part = slice(self.position, self.position + count)
        self.position = part.stop if part.stop < len(labels) else 0
        captions, position = torch.unique(labels[part], return_inverse=True)
        logits = self.pairs["logits"][part][:, labels[part]]
        return ReferenceBatch(images[part], captions, position, logits)

    def get_extra_state(self) -> dict[str, Any]:
        """The pairs, the teacher's scores, and how many pairs of the pass were taken."""
        return {**self.pairs, "position": self.position}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put the pairs back."""
        self.position = state["position"]
        device = self.get_buffer("_place").device
        tensors = ((name, value) for name, value in state.items() if isinstance(value, Tensor))
        self.pairs = {name: value.to(device) for name, value in tensors}


class Reference(nn.Module):
    """Image-caption pairs that a teacher, a frozen copy of the model, scores once.

    One pass over an image replaces a pass in every step that draws it; images of a source that
    later tasks draw from again are remembered between tasks (their features, not the images).
    Scores belong to the teacher's state: whoever changes the teacher, by whatever way, gets new
    ones with the next batch. Pairs and remembered features are part of the state dict.

    Attributes:
        teacher: the frozen copy.
        scored: the pairs with the teacher's scores.
    """

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.teacher = frozen_copy(model)
        self.known = KnownFeatures()
        self.scored = ScoredPairs()
        self.clear()

    def clear(self) -> None:
        """Drop the pairs."""
        self.scored.clear()
        self._source = ""
        self._scored_by: str | None = None

    @property
    def tokens(self) -> Tensor:
        """``(K, L)``: the tokenised captions of all pairs."""
        return self.scored.tokens

    def set_pairs(self, pairs: ReferencePairs) -> None:
        """Take other pairs and let the teacher score all images against all captions."""
        self._source = pairs.source
        self.scored.place(pairs, self.teacher)
        self._score()

    def take(self, count: int) -> ReferenceBatch:
        """The next pairs, see `ScoredPairs.take`."""
        if self._scored_by is None or self._scored_by != self._teacher_state():
            self._score()
        return self.scored.take(count)

    def get_extra_state(self) -> dict[str, Any]:
        """Where the pairs come from, and the teacher's state that the scores belong to."""
        return {"source": self._source, "scored_by": self._scored_by}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up where the state was saved."""
        self._source, self._scored_by = state["source"], state["scored_by"]

    def _score(self) -> None:
        """Logits of all images and captions under the teacher as it is now."""
        state = self._teacher_state()

        def encode(images: Tensor) -> Tensor:
            if self._source == "task":  # its images will not come again
                return encoded_images(self.teacher, images)
            return self.known.features(images, lambda x: encoded_images(self.teacher, x), state)

        self.scored.score(self.teacher, encode)
        self._scored_by = state

    def _teacher_state(self) -> str | None:
        """Changes whenever the teacher does; None if that cannot be seen."""
        teacher = self.teacher
        if not is_pure(teacher):
            return None
        network = fingerprint(teacher.network)
        scaling = bit_digests([teacher.mean, teacher.std])
        return None if network is None or scaling is None else lasting((network, scaling))


class StreamedImages(nn.Module):
    """Images of a stream of reference data, batch by batch, and where in it a method stands.

    Attributes:
        external: bytes of the stream's data that belong to no task; kept when it is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = self.external = 0
        self._stream: ReferenceStream | None = None

    def open(self, stream: ReferenceStream) -> None:
        """Begin at the first image."""
        self._stream, self.step, self.external = stream, 0, stream.nbytes

    def take(self, count: int) -> Tensor:
        """The next images, ``(count, 3, H, W)`` uint8 on the CPU."""
        assert self._stream is not None, "open comes first"
        images = self._stream.images(self.step, count)
        self.step += 1
        return images

    def close(self) -> None:
        """Let the data go."""
        self._stream, self.step = None, 0

    def get_extra_state(self) -> dict[str, int]:
        """Batches taken and bytes of external data."""
        return {"step": self.step, "external": self.external}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.step, self.external = state["step"], state["external"]


def encoded_images(teacher: CLIP, images: Tensor) -> Tensor:
    """Features of many images ``(N, D)``, part by part and on the CPU."""
    return torch.cat([teacher.encode_image(part).cpu() for part in torch.split(images, CHUNK)])
