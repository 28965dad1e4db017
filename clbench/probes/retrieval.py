"""Retrieval: whether images find their captions, and captions their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, final

import torch
from torch import Tensor

from clbench.core.probe import Look, Probe

PLACES: Final = (1, 5, 10)
CHUNK: Final = 1024
"""Queries compared at once."""


@final
class Retrieval(Probe):
    """R@1, R@5 and R@10 of both directions on Flickr30k and COCO, as far as they are there.

    Karpathy's test splits with five captions per image; for an image, one of its captions among
    the first k counts. On the embedded CLIP: rendered pictures with captions that name what is
    drawn. Features are those of the method's model.

    Source: Karpathy & Fei-Fei 2015, https://arxiv.org/abs/1412.2306.
    """

    name: ClassVar[str] = "retrieval"
    needs: ClassVar[frozenset[Any]] = frozenset({"captioned"})

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """``<set>_i2t_r1`` and so on: images to texts, and ``t2i``, texts to images."""
        values: dict[str, float | None] = {}
        for one in look.data.captioned:
            images, _ = look.features(one.images)
            found = recalls(images, look.text_features(one.captions), torch.tensor(one.owners))
            values |= {f"{one.name}_{key}": value for key, value in found.items()}
        return values


def recalls(images: Tensor, texts: Tensor, owners: Tensor) -> dict[str, float]:
    """Share of queries with a right answer among the first k, both ways.

    Args:
        images: ``(N, D)`` features.
        texts: ``(M, D)`` features.
        owners: ``(M,)`` the image that each text belongs to.
    """
    to_texts = torch.cat([owners[best] for best in _nearest(images, texts)])
    to_images = torch.cat([*_nearest(texts, images)])
    hits = {
        "i2t": to_texts == torch.arange(len(images))[:, None],
        "t2i": to_images == owners[:, None],
    }
    return {
        f"{way}_r{k}": float(found[:, :k].any(dim=1).double().mean())
        for way, found in hits.items()
        for k in PLACES
    }


def _nearest(queries: Tensor, answers: Tensor) -> Iterator[Tensor]:
    """Indices of the nearest answers, best first, chunk by chunk of the queries."""
    count = min(max(PLACES), len(answers))
    for part in queries.split(CHUNK):
        yield (part @ answers.T).topk(count, dim=1).indices
