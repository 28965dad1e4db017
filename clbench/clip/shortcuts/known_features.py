"""Features of images that a model need not look at twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

LIMIT: Final = 2**15
"""Images whose features are kept at most: 64 MB for ViT-B/16."""
DIGEST: Final = 16
"""Bytes of an image's digest."""


class KnownFeatures(nn.Module):
    """Features by the content of an image, kept from task to task and in the state dict.

    They are those of one state of one model: a look-up under another state forgets them all.
    Memory is bounded: beyond `LIMIT` images nothing more is kept, and further images are encoded
    whenever they come.
    """

    def __init__(self) -> None:
        super().__init__()
        self._state: str | None = None
        self._rows: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        """Number of images whose features are kept."""
        return len(self._rows)

    def features(
        self, images: Tensor, encode: Callable[[Tensor], Tensor], state: str | None
    ) -> Tensor:
        """Features ``(N, D)`` on the CPU, in the order of the images.

        Args:
            images: ``(N, 3, H, W)`` uint8.
            encode: computes the features, ``(M, D)``, of images that are not known.
            state: all that `encode` depends on besides images
                (`clbench.clip.shortcuts.constancy.lasting`); None if that is not known, so that
                nothing is remembered.
        """
        if state is None:
            return encode(images).cpu()
        if state != self._state:
            self._state, self._rows = state, {}
        digests = [_digest(image) for image in images]
        first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
        new = [i for i, digest in enumerate(digests) if first[digest] == i]
        new = [i for i in new if digests[i] not in self._rows]
        rows = dict(self._rows)
        if new:
            encoded = encode(images[torch.tensor(new)]).cpu()
            rows |= {digests[i]: row for i, row in zip(new, encoded, strict=True)}
        for i in new[: LIMIT - len(self._rows)]:
            self._rows[digests[i]] = rows[digests[i]].clone()
        return torch.stack([rows[digest] for digest in digests])

    def get_extra_state(self) -> dict[str, Any]:
        """Digests ``(N, 16)`` and features ``(N, D)``, and the state that they belong to."""
        if not self._rows:
            return {}
        digests = torch.frombuffer(bytearray(b"".join(self._rows)), dtype=torch.uint8)
        features = torch.stack(list(self._rows.values()))
        return {
            "state": self._state,
            "digests": digests.view(-1, DIGEST),
            "features": features,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up where the state was saved."""
        self._state, self._rows = state.get("state"), {}
        if state:
            digests = (bytes(row.tolist()) for row in state["digests"].cpu())
            self._rows = dict(zip(digests, state["features"].cpu(), strict=True))


def _digest(image: Tensor) -> bytes:
    content = image.contiguous().cpu().numpy()
    return hashlib.blake2b(content.data, digest_size=DIGEST).digest()
