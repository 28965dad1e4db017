"""Rendered pictures, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from clbench.datamodules.mini.render import renderer_hash

Arrays = dict[str, NDArray[np.generic]]


def cached(
    root: Path, version: int, name: str, keys: Collection[str], render: Callable[[], Arrays]
) -> Arrays:
    """What `render` returns, read from the disk if it has been rendered before.

    A cache that cannot be written costs time, not results; a damaged file is written again.

    Args:
        root: folder of the cache.
        version: of the benchmark.
        name: of the file, without suffix.
        keys: of the arrays.
        render: called if there is no intact file of the same version and renderer.
    """
    file = root / "mini" / f"v{version}-{renderer_hash()[:12]}" / f"{name}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            arrays = _read(file, keys)
            if arrays is None:
                arrays = render()
                _write(file, arrays)
    except OSError:
        return render()
    return arrays


def _read(file: Path, keys: Collection[str]) -> Arrays | None:
    """The arrays; None if missing or damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {key: stored[key] for key in keys}
    except Exception:  # numpy, zipfile and zlib each raise their own on damaged files
        return None


def _write(file: Path, arrays: Arrays) -> None:
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    partial.replace(file)
