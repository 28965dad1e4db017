"""Images of a data set on disk, not yet decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels.rgb import decode


@dataclass(frozen=True, eq=False)
class Samples:
    """One split of a data set: where each image is, and its label.

    Attributes:
        labels: ``(N,)`` int64, from 0 to C - 1.
        root: folder that `files` are relative to.
        files: N paths with forward slashes, for data sets of image files; else None.
        arrays: ``(N, H, W)`` or ``(N, H, W, 3)`` uint8, for data sets kept as arrays; else None.
        prefix: what the names of the files begin with in `digest`, so that it is the same in all
            layouts of a data set.
    """

    labels: NDArray[np.int64]
    root: Path
    files: tuple[str, ...] | None = None
    arrays: NDArray[np.uint8] | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        if (self.files is None) == (self.arrays is None):
            raise ValueError("give either files or arrays")
        if len(self) != len(self.files if self.files is not None else self._arrays):
            raise ValueError("as many labels as images are needed")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int, sha256: bytes | None = None) -> Image.Image:
        """Decode one image as 8-bit RGB (see `clbench.datamodules.pixels.rgb.decode`).

        Args:
            index: which one.
            sha256: what its file must hold, as was seen earlier; None if nothing is known.

        Raises:
            ClbenchError: the image is missing, damaged or another one; names the file.
        """
        if self.files is None:
            return Image.fromarray(self._arrays[index]).convert("RGB")
        path = self.root / self.files[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise ClbenchError(f"cannot read the image {path}: {reason}") from error
        if sha256 is not None and hashlib.sha256(content).digest() != sha256:
            raise ClbenchError(
                f"the image {path} was replaced while it was in use: let the images be until the "
                "run is complete, or start again with --fresh"
            )
        return decode(path, content)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Samples:
        """Some of the images, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        files = None if self.files is None else tuple(self.files[i] for i in chosen)
        arrays = None if self.arrays is None else self.arrays[chosen]
        return Samples(self.labels[chosen], self.root, files, arrays, self.prefix)

    def digest(self) -> str:
        """SHA-256 over names and sizes of the files, or the arrays, and over the labels.

        Independent of where the data lie and of the file system's order. It tells which images
        these are; what the files hold is not looked at (`DecodedFile.digest` does).
        """
        sha = hashlib.sha256(self.labels.tobytes())
        if self.files is None:
            sha.update(np.ascontiguousarray(self._arrays).data)
        for name in self.files or ():
            size = (self.root / name).stat().st_size
            sha.update(f"{self.prefix}{name}\0{size}\0".encode())
        return sha.hexdigest()

    @property
    def _arrays(self) -> NDArray[np.uint8]:
        assert self.arrays is not None
        return self.arrays


@dataclass(frozen=True)
class Contents:
    """The splits of a data set, with its class names in label order.

    Attributes:
        train: training images.
        test: test images.
        class_names: C names.
        val: validation images, where there is a published split of three.
        lists: name to SHA-256 of lists that decide the splits and may differ from copy to copy.
    """

    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    val: Samples | None = None
    lists: Mapping[str, str] = field(default_factory=dict)

    def list_hashes(self, data_set: str) -> dict[str, str]:
        """Hashes of the lists and of validation images, by what the result of a run calls them."""
        found = {f"{data_set}/{file}": digest for file, digest in self.lists.items()}
        if self.val is not None and len(self.val):
            found[f"{data_set}/val"] = self.val.digest()
        return found


def thinned(size: int, about: int) -> range:
    """Indices of `about` images out of `size`, evenly spread: what smoke runs are tested on."""
    return range(0, size, max(1, size // about))
