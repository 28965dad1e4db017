"""Row 0 of the accuracy matrix, tested once per backbone and benchmark."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from clbench.core.files import write_atomic
from clbench.core.results.correctness import CorrectRow, decode_rows, encode_row


class ZeroShotCache:
    """Keeps the zero-shot row of one backbone on one benchmark, image by image.

    Args:
        folder: where the file lies.
        identity: everything the row depends on; its hash names the file.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        self._identity = json.loads(text)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = folder / f"zero-shot-{digest}.json"

    def load(self) -> CorrectRow | None:
        """Which images of each task are correct; None if that is not known.

        Damaged files count as unknown, and so do those of earlier versions, which kept the
        accuracies only.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["identity"] != self._identity:
                return None
            return decode_rows(base64.b64decode(content["correct"], validate=True))[0]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, row: Mapping[str, ArrayLike]) -> None:
        """Remember the row."""
        bits = base64.b64encode(encode_row(0, row)).decode()
        content = {"identity": self._identity, "correct": bits}
        write_atomic(self.path, json.dumps(content, indent=2) + "\n")
