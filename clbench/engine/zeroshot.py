"""Row 0 of the accuracy matrix, tested once per backbone and benchmark."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clbench.core.files import write_atomic


class ZeroShotCache:
    """Keeps the zero-shot row of one backbone on one benchmark.

    Args:
        folder: where the file lies.
        identity: everything the row depends on; its hash names the file.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        self._identity = json.loads(text)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = folder / f"zero-shot-{digest}.json"

    def load(self) -> dict[int, float] | None:
        """Accuracy per task index; None if it is not known or the file is damaged."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["identity"] != self._identity:
                return None
            return {int(task): float(value) for task, value in content["accuracy"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, row: dict[int, float]) -> None:
        """Remember the row."""
        content = {"identity": self._identity, "accuracy": row}
        write_atomic(self.path, json.dumps(content, indent=2) + "\n")
