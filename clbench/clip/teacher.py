"""Teachers: frozen models whose judgement of images among texts is distilled."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

CHUNK = 256
"""Texts encoded at once."""


def frozen_copy(model: CLIP, *, share_frozen: bool = False) -> CLIP:
    """A copy with tensors of its own, so that training the model leaves it as it is.

    Args:
        model: what is copied.
        share_frozen: whether parameters that do not require grad, and never will, are the model's.
    """
    shared = {id(p): p for p in model.parameters() if share_frozen and not p.requires_grad}
    return copy.deepcopy(model, {**shared}).requires_grad_(False).eval()


def encoded_texts(model: CLIP, tokens: Tensor) -> Tensor:
    """Features of many texts ``(N, D)``, part by part and without a graph."""
    with torch.no_grad():
        return torch.cat([model.encode_text(part) for part in torch.split(tokens, CHUNK)])


@final
class Teacher:
    """A model that is not trained, and the texts among which it judges images.

    A plain object: it is no part of a method's state. A method keeps the model if it is more than
    a copy of what a task starts from.

    Args:
        model: the teacher.
        tokens: ``(K, L)`` its texts.

    Attributes:
        texts: ``(K, D)`` their features.
    """

    def __init__(self, model: CLIP, tokens: Tensor) -> None:
        self._model = model
        self.texts = encoded_texts(model, tokens)

    def logits(self, images: Tensor) -> Tensor:
        """Similarities of images and texts, ``(B, K)``, without a graph."""
        with torch.no_grad():
            return self._model.logits(images, self.texts)


@final
class ImageTeacher:
    """A model that is not trained, asked for features of images. A plain object like `Teacher`.

    Args:
        model: the teacher.
    """

    def __init__(self, model: CLIP) -> None:
        self._model = model

    def features(self, images: Tensor) -> Tensor:
        """Unit-length features ``(B, D)``, without a graph."""
        with torch.no_grad():
            return self._model.encode_image(images)
