"""Weights out of a TorchScript archive, without running what it contains.

OpenAI published CLIP as TorchScript archives. `torch.jit.load` would compile and partly execute
the program inside such a file, and is deprecated; `torch.load` refuses these files when told to
load weights only. An archive is a zip file whose ``data.pkl`` describes the module tree and whose
``data/`` holds the tensors' bytes, so the tree is read here with an unpickler that knows tensors,
lists and inert module objects and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

STORAGES: Final = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which unlike `torch.save`'s has constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All tensors of the archived module by their dotted attribute names.

    Raises:
        pickle.UnpicklingError: the archive holds something other than modules and tensors.
        Exception: the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(record) as stream:
            root = _ModuleUnpickler(stream, archive, record.removesuffix(".pkl")).load()
    if not isinstance(root, _Module):
        raise pickle.UnpicklingError("the archive holds no module")
    return dict(_tensors(root, ""))


class _Module:
    """A module of the archive: attributes without behaviour."""


class _ModuleUnpickler(pickle.Unpickler):
    """Builds `_Module` objects and tensors; every other global name is refused."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):  # always empty: backward hooks
            return OrderedDict
        if module == "torch.jit._pickle":  # typed lists: the first argument is the list
            return _first
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")

    def persistent_load(self, pid: Any) -> Tensor:
        """The bytes of one storage, as a flat tensor of its type."""
        _, dtype, key, *_ = pid
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    # A view, not a copy: a size may exceed the storage where a stride is zero.
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
