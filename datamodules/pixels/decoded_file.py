"""Images decoded once, into a memory-mapped file that all runs share.

The file is a NumPy record array ``(checksum, pixels)``. Its name holds a hash of everything the
pixels depend on: what the image files hold, the transform and the version of the decoder. It is
written beside its final name and renamed when it is whole, so what bears the name is complete.
Every image is checked against its checksum when a process first reads it, and every image file,
whenever it is decoded, against the hash that was taken first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import PIL
import torchvision
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch.utils.data import get_worker_info

from clbench.core.foreign.console import SafeConsole
from clbench.datamodules.pixels.augment import Pixels, Transform
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.file_hashes import FileHashes, Hashes
from clbench.datamodules.pixels.samples import Samples

FORMAT: Final = 1
CHUNK: Final = 256
"""Images decoded between two writes."""
RESERVE: Final = 2**30
"""Bytes to leave free on the disk."""


class DecodedFile:
    """The images of a `Samples` under one transform, decoded from a cache file or on the fly.

    Args:
        samples: the images.
        transform: how they are brought to size.
        cache: where cache files and hashes of images are kept; None means nowhere.
        name: for messages and the file's name.
        keep: whether decoded images are kept there.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        cache: Cache | None,
        name: str,
        *,
        keep: bool = True,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.name = name
        self._cache = cache
        self._kept = cache.within("decoded") if cache is not None and keep else None
        self._hashes: Hashes | None = None
        self._digest: str | None = None
        self._records: NDArray[Any] | None = None
        self._sound: NDArray[np.bool_] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A worker process maps the file itself instead of receiving its content."""
        return {**self.__dict__, "_records": None, "_sound": None}

    @property
    def path(self) -> Path | None:
        """The cache file, which need not exist."""
        if self._kept is None:
            return None
        pixels = [FORMAT, self.digest(), PIL.__version__, torchvision.__version__]
        key = hashlib.sha256(json.dumps(pixels).encode()).hexdigest()[:16]
        return self._kept.path(f"{self.name}-{self.transform.size}-{key}.npy")

    @property
    def cached(self) -> bool:
        """Whether the cache file exists and fits; a damaged one counts as missing."""
        return self._open() is not None

    @property
    def nbytes(self) -> int:
        """Approximate size of the cache file in bytes."""
        return len(self.samples) * self._record.itemsize

    def digest(self) -> str:
        """SHA-256 over what the images hold, their names and labels, and the transform."""
        if self._digest is None:
            self.hash_images(quiet=True)
            sha = hashlib.sha256(f"{self.samples.digest()} {self.transform.key}".encode())
            if self._hashes is not None:
                sha.update(self._hashes.tobytes())
            self._digest = sha.hexdigest()
        return self._digest

    def hash_images(self, *, quiet: bool = False) -> None:
        """Take the hash of every image file, once; later ones are compared with it.

        Args:
            quiet: show no progress.

        Raises:
            ClbenchError: an image cannot be read.
        """
        if self._hashes is not None or self.samples.files is None:
            return
        hashes = FileHashes(self.samples.root, self._cache)
        self._hashes = hashes.of_all(self.samples.files, self.name, quiet=quiet)

    def original(self, index: int) -> Image.Image:
        """An image as it was stored, in RGB.

        Raises:
            ClbenchError: it is missing, damaged, or not what was hashed.
        """
        known = self._hashes[index].tobytes() if self._hashes is not None else None
        return self.samples.image(index, known)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Pixels:
        """Images ``(B, 3, S, S)`` uint8.

        Raises:
            ClbenchError: an image is missing or damaged.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        records = self._open()
        if records is None:
            return self._decode(chosen)
        pixels = np.ascontiguousarray(records["pixels"][chosen])
        self._mend(pixels, records["checksum"][chosen], chosen)
        return pixels

    def build(self, *, quiet: bool = False) -> None:
        """Write the cache file unless it is there; wait if another process is writing it.

        Where the folder cannot be written or has too little space, images are decoded on
        the fly, which costs time only.

        Args:
            quiet: say nothing and show no progress.

        Raises:
            ClbenchError: an image is missing or damaged. Nothing is left behind.
        """
        path = self.path
        if path is None or self.cached:
            return
        console = SafeConsole(stderr=True, quiet=quiet)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock"), self.name, console):
                if not self.cached:  # else the other process wrote it
                    self._require_space(path.parent)
                    self._write(path, console)
        except OSError as error:
            _say(
                console,
                f"{self.name}: images are decoded again in every run, because they cannot be "
                f"kept in {path.parent}: {error.strerror or error}",
            )

    @property
    def _record(self) -> np.dtype[Any]:
        side = self.transform.size
        return np.dtype([("checksum", "<u4"), ("pixels", "u1", (3, side, side))])

    def _open(self) -> NDArray[Any] | None:
        """The mapped cache file; None if it is missing, cut short or of another shape."""
        path = self.path if self._records is None else None
        if path is not None:
            try:
                records = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                return None
            if records.shape == (len(self.samples),) and records.dtype == self._record:
                self._records = records
                self._sound = np.zeros(len(records), dtype=np.bool_)
        return self._records

    def _mend(self, pixels: Pixels, checksums: NDArray[Any], chosen: NDArray[np.int64]) -> None:
        """Check images when first read; decode those again that changed on the disk."""
        assert self._sound is not None
        for row in np.flatnonzero(~self._sound[chosen]):
            if zlib.crc32(pixels[row].data) != checksums[row]:
                pixels[row] = self._decode(chosen[row : row + 1])[0]
                self._discard()
            else:
                self._sound[chosen[row]] = True

    def _discard(self) -> None:
        """Remove the damaged file, so that the next run writes it again."""
        if self.path is not None:
            with suppress(OSError):  # it may be another's
                self.path.unlink(missing_ok=True)

    def _decode(self, chosen: NDArray[np.int64]) -> Pixels:
        """Decode images now, in threads unless this is one of many worker processes."""
        if get_worker_info() is not None or len(chosen) < 2:
            return np.stack([self._decode_one(index) for index in chosen])
        with ThreadPoolExecutor(_threads()) as pool:
            return np.stack(list(pool.map(self._decode_one, chosen)))

    def _decode_one(self, index: np.int64) -> Pixels:
        return self.transform(self.original(int(index)), int(index))

    def _require_space(self, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if free < self.nbytes + RESERVE:
            raise OSError(
                f"{self.nbytes / 1e9:.1f} GB are needed, {RESERVE / 1e9:.1f} GB must stay free, "
                f"and {free / 1e9:.1f} GB are free"
            )

    def _write(self, path: Path, console: Console) -> None:
        """Decode everything into a partial file, then give it its name."""
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                self._write_records(file, console)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _write_records(self, file: IO[bytes], console: Console) -> None:
        count = len(self.samples)
        descr = np.lib.format.dtype_to_descr(self._record)
        header = {"descr": descr, "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_2_0(file, header)
        with ThreadPoolExecutor(_threads()) as pool:
            chunks = range(0, count, CHUNK)
            shown = track(
                chunks,
                description=f"decoding {self.name}",
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            for start in shown:
                indices = np.arange(start, min(start + CHUNK, count))
                for pixels in list(pool.map(self._decode_one, indices)):
                    file.write(zlib.crc32(pixels.data).to_bytes(4, "little"))
                    file.write(pixels.data)


@contextmanager
def _alone(path: Path, name: str, console: Console) -> Iterator[None]:
    """Hold a lock file; say so if another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(console, f"{name}: waiting for another process that decodes these images")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _threads() -> int:
    return min(32, os.cpu_count() or 1)
