"""Data sets annotated in MATLAB files: Flowers and StanfordCars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet, published_names
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import MissingDataError, image_samples


def read_flowers(dataset: DataSet, folder: Path) -> Contents:
    """Oxford 102 Flower: ``trnid`` trains, ``tstid`` tests, ``valid`` is not used.

    No file names the classes; they are those of the protocol.
    """
    labels = _numbers(folder / "imagelabels.mat", "labels") - 1
    listed_in = folder / "setid.mat"

    def split(key: str) -> Samples:
        ids = _numbers(listed_in, key)
        if len(ids) and not 1 <= ids.min() <= ids.max() <= len(labels):
            raise ClbenchError(f"{listed_in}: {key} names images without a label")
        files = [f"jpg/image_{i:05d}.jpg" for i in ids]
        classes = labels[ids - 1].tolist()
        return image_samples(folder, files, classes, dataset.classes, folder / "imagelabels.mat")

    names = (published_names("Flowers") or ())[: dataset.classes]
    return Contents(split("trnid"), split("tstid"), names)


def read_cars(dataset: DataSet, folder: Path) -> Contents:
    """Stanford Cars; the labelled test list lies beside ``devkit``, the others inside."""
    cells = _variable(folder / "devkit" / "cars_meta.mat", "class_names")
    names = tuple(str(name) for name in np.atleast_1d(cells))
    train = _cars_split(dataset, folder, "cars_train", "devkit/cars_train_annos.mat")
    test = _cars_split(dataset, folder, "cars_test", "cars_test_annos_withlabels.mat")
    return Contents(train, test, names)


def _cars_split(dataset: DataSet, folder: Path, images: str, annotations: str) -> Samples:
    listed_in = folder / annotations
    rows = np.atleast_1d(_variable(listed_in, "annotations"))
    try:
        files = [f"{images}/{name}" for name in rows["fname"]]
        labels = [int(number) - 1 for number in rows["class"]]
    except (ValueError, TypeError, IndexError) as error:
        raise ClbenchError(f"{listed_in} has no fields 'fname' and 'class'") from error
    return image_samples(folder, files, labels, dataset.classes, listed_in)


def _numbers(path: Path, key: str) -> NDArray[np.int64]:
    """A one-dimensional variable of whole numbers."""
    array = np.atleast_1d(_variable(path, key))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ClbenchError(f"{path}: {key!r} is not a list of whole numbers")
    return array.astype(np.int64)


def _variable(path: Path, key: str) -> NDArray[Any]:
    """One variable of a MATLAB file, without dimensions of size one."""
    if not path.is_file():
        raise MissingDataError(f"{path} is missing")
    try:
        content = scipy.io.loadmat(str(path), squeeze_me=True, variable_names=[key])
    except Exception as error:  # SciPy, zlib and struct each raise their own on damaged files
        raise ClbenchError(f"{path} is damaged: {error}") from error
    if key not in content:
        raise ClbenchError(f"{path} has no variable {key!r}")
    return np.asarray(content[key])
