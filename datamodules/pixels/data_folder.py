"""Where data sets, splits and decoded images lie, and image sets under the test transform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from clbench.datamodules.pixels.decoded import Decoded
from clbench.datamodules.pixels.samples import Samples, thinned

QUICK_TEST_SIZE: Final = 64


def default_cache() -> Path:
    """The user's cache folder: ``$CLBENCH_CACHE``, else under ``$XDG_CACHE_HOME`` or ``~``."""
    if chosen := os.environ.get("CLBENCH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clbench"


def data_folder(data_root: str | None) -> Path:
    """Where data sets, splits and decoded images lie: as given, or in the user's cache folder."""
    return Path(data_root).expanduser() if data_root else default_cache() / "data"


def decoded(samples: Samples, size: int, root: Path, name: str, *, quick: bool = False) -> Decoded:
    """An image set under the test transform; for smoke runs every n-th image, not kept on disk."""
    if not quick:
        return Decoded.of(samples, size, root / "decoded", name)
    return Decoded.of(samples.subset(thinned(len(samples), QUICK_TEST_SIZE)), size, None, name)
