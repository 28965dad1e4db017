"""Data sets kept as arrays: MNIST (idx files) and CIFAR-100 (Python 2 pickles)."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.core.foreign.sizes import GROWTH, most_bytes
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.cifar_pickle import read_pickle
from clbench.datamodules.readers.disk import MissingDataError, check_labels, read_bytes

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32


def read_mnist(dataset: DataSet, folder: Path) -> Contents:
    """MNIST; class names are torchvision's, from "0 - zero" to "9 - nine"."""
    names = tuple(f"{digit} - {word}" for digit, word in enumerate(DIGITS))[: dataset.classes]
    train, test = (_mnist_split(folder, split, dataset.classes) for split in ("train", "t10k"))
    return Contents(train, test, names)


def _mnist_split(raw: Path, split: str, classes: int) -> Samples:
    images = read_idx(raw / f"{split}-images-idx3-ubyte")
    labels_file = raw / f"{split}-labels-idx1-ubyte"
    labels = read_idx(labels_file)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ClbenchError(f"{labels_file} has {labels.shape} labels for {images.shape} images")
    return Samples(check_labels(labels, classes, labels_file), raw, arrays=images)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of bytes, plain or compressed; the plain one is used if both exist.

    Args:
        path: without the suffix ``.gz``.

    Raises:
        MissingDataError: neither exists.
        ClbenchError: the file is not an idx file of bytes, or is too short or too long.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        raise MissingDataError(f"{path} (or .gz) is missing")
    source = path if path.exists() else packed
    content = read_bytes(source)
    try:
        if source is packed:
            content = _decompressed(content)
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        if (zeros, kind) != (0, 8) or dimensions not in (1, 3):
            raise ClbenchError(f"{source} is not an idx file of bytes")
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise ClbenchError(f"{source} is damaged: {error}") from error
    if len(values) != np.prod(shape, dtype=object):
        raise ClbenchError(f"{source} is damaged: {len(values)} bytes for shape {shape}")
    return values.reshape(shape)


def _decompressed(content: bytes) -> bytes:
    """The content of a gzip file, unless it is out of proportion."""
    most = most_bytes(len(content))
    with gzip.open(io.BytesIO(content)) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(f"it unpacks to more than {GROWTH} times its size")
    return found


def read_cifar100(dataset: DataSet, folder: Path) -> Contents:
    """CIFAR-100 with its fine labels; rows hold the red, then the green, then the blue plane."""
    meta = folder / "meta"
    names = read_pickle(meta).get(b"fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ClbenchError(f"{meta} has no list 'fine_label_names'")
    train, test = (_cifar_split(folder / split, dataset.classes) for split in ("train", "test"))
    return Contents(train, test, tuple(name.decode("ascii", "replace") for name in names))


def _cifar_split(path: Path, classes: int) -> Samples:
    content = read_pickle(path)
    data, labels = content.get(b"data"), content.get(b"fine_labels")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ClbenchError(f"{path} has no list 'fine_labels' of whole numbers")
    if not isinstance(data, np.ndarray) or data.shape != (len(labels), 3 * SIDE * SIDE):
        raise ClbenchError(f"{path} does not hold {3 * SIDE * SIDE} bytes for each label")
    images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return Samples(check_labels(labels, classes, path), path.parent, arrays=images)
