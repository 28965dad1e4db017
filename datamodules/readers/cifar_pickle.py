"""Reading the pickles of CIFAR-100 without executing code that a pickle may contain.

They were written by Python 2 with an early NumPy: keys and texts are byte strings, and arrays ask
for ``numpy.core.multiarray``. Instead of NumPy's functions, stand-ins that only take bytes and
shapes are given to the unpickler; every other name is refused.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.core.foreign.pickles import check_pickle
from clbench.datamodules.readers.disk import read_bytes


def read_pickle(path: Path) -> dict[bytes, Any]:
    """A pickled dictionary of numbers, byte strings, lists and uint8 arrays.

    Raises:
        MissingDataError: no such file.
        ClbenchError: the file is damaged, or a pickle of something else.
    """
    content = read_bytes(path)
    try:
        check_pickle(content, lambda module, name: (module, name) in KNOWN)
        entries = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(entries, dict):
            raise pickle.UnpicklingError("not a dictionary")
        return {key: _finished(value) for key, value in entries.items()}
    except Exception as error:  # a damaged pickle can raise anything, from KeyError to MemoryError
        raise ClbenchError(f"{path} is damaged: {error!s:.200}") from error


def _finished(value: object) -> object:
    return value.array() if isinstance(value, _Array) else value


@final
class _DType:
    """Stands in for ``numpy.dtype``: only unsigned bytes are known."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in (b"u1", b"|u1"):
            raise pickle.UnpicklingError(f"array of type {code!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, of which a byte has none."""


@final
class _Array:
    """Stands in for an array until its shape and bytes are known."""

    def __init__(self) -> None:
        self._array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[object, Any, object, object, object]) -> None:
        _, shape, dtype, columns_first, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes) or columns_first:
            raise pickle.UnpicklingError("not an array of bytes in C order")
        self._array = np.frombuffer(raw, dtype=np.uint8).reshape(shape)

    def array(self) -> NDArray[np.uint8]:
        if self._array is None:
            raise pickle.UnpicklingError("array without content")
        return self._array


def _reconstruct(*_: object) -> _Array:
    return _Array()


KNOWN: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}
"""Names that the pickles contain, with what stands in for them."""


@final
class _Unpickler(pickle.Unpickler):
    """An unpickler that knows these names only."""

    def find_class(self, module: str, name: str) -> object:
        """What a name in the pickle stands for."""
        return KNOWN[module, name]
