"""What archives of weights may hold, looked at before any of it is read.

`torch.save` and TorchScript write zip files: a pickle that describes the tensors, and their bytes
beside it, uncompressed. A file that is compressed, states sizes it does not have, or calls anything
but the making of tensors could fill the memory out of a few hundred bytes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.core.foreign.pickles import check_pickle
from clbench.core.foreign.sizes import GROWTH, most_bytes

TENSORS: Final = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.nn.parameter", "Parameter"),
    }
)
"""What state dicts and training checkpoints need besides storages and numbers' types."""
TYPES: Final = ("bfloat16", "float16", "float32", "float64", "uint8", "int32", "int64", "bool")


def check_archive(path: Path, *, torchscript: bool) -> None:
    """Refuse a zip file of weights that would take more memory than its size accounts for.

    Args:
        path: the file.
        torchscript: whether it is a TorchScript archive; its reader checks names itself.

    Raises:
        ClbenchError: it holds too much for its size.
        pickle.UnpicklingError: it holds something other than tensors and plain values.
        Exception: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > most_bytes(path.stat().st_size):
            raise ClbenchError(
                f"{path} unpacks to more than {GROWTH} times its size, which no weights do: "
                "refused; save them with torch.save(), which does not compress"
            )
        for member in members:
            if member.filename.lower().endswith(".pkl"):  # torch does not mind the case
                check_pickle(archive.read(member), _anything if torchscript else _is_plain)


def _anything(module: str, name: str) -> bool:
    return True


def _is_plain(module: str, name: str) -> bool:
    storage = module == "torch" and (name.endswith("Storage") or name in TYPES)
    return storage or (module, name) in TENSORS
