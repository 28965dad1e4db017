"""Reading weight files of every common format, without executing anything inside them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clbench.clip.weights.archives import check_archive
from clbench.clip.weights.torchscript import is_torchscript, read_torchscript
from clbench.core.errors import ClbenchError
from clbench.core.foreign.json_text import load_json

SUFFIXES: Final = frozenset({".safetensors", ".pt", ".pth", ".bin"})

NOT_WEIGHTS: Final = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Numbers that OpenAI stored among the weights."""

FORBIDDEN: Final = ("allowed global", "not allowed", "Unsupported class", "unrecognized function")
"""Words by which torch and the archive reader say that they met a forbidden object."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weight file.

    Attributes:
        state: tensors under open_clip's names, as stored.
        metadata: the values of a safetensors file's metadata that are JSON, decoded.
        torchscript: whether the file is a TorchScript archive, OpenAI's format.
    """

    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    torchscript: bool = False


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, a PyTorch state dict or a TorchScript archive.

    A state dict may be nested under ``state_dict`` and its names may begin with ``module.``, as
    training scripts leave them. The memory taken is bounded by the size of the file.

    Raises:
        ClbenchError: there is no such file, it is damaged, it holds more than tensors, or it
            states sizes out of proportion to its own.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ClbenchError(f"the weights file {path} {kind} (option backbone.weights)")
    try:
        checkpoint = _read(path)
    except ClbenchError:
        raise
    except pickle.UnpicklingError as error:
        if any(sign in str(error) for sign in FORBIDDEN):
            raise ClbenchError(
                f"{path} holds Python objects besides tensors, which clbench does not load because "
                f"that can run any code; save its state_dict() and use that"
            ) from error
        raise _damaged(path) from error
    except Exception as error:  # damaged files fail in any way: the readers promise nothing
        raise _damaged(path) from error
    if not checkpoint.state or not all(isinstance(v, Tensor) for v in checkpoint.state.values()):
        raise ClbenchError(f"{path} holds no state dict (a mapping from names to tensors)")
    return checkpoint


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> None:
    """Copy weights into a network, converted to its types.

    Args:
        network: receives the weights.
        state: tensors by name; the numbers that OpenAI stored beside them are passed over.
        source: where they come from, for the error.
        name: the network's architecture, for the error.

    Raises:
        ClbenchError: names or shapes differ; the first of them are listed.
    """
    state = {key: value for key, value in state.items() if key not in NOT_WEIGHTS}
    check_fit(network, state, source, name)
    try:
        network.load_state_dict(state)
    except (RuntimeError, NotImplementedError) as error:
        kinds = ", ".join(sorted({str(value.dtype) for value in state.values()}))
        raise ClbenchError(
            f"the weights in {source} cannot be converted to float32 (they are {kinds}): save "
            "them as float32, float16 or bfloat16"
        ) from error


def check_fit(network: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> None:
    """Compare weights with a network, which may lie on the meta device.

    Raises:
        ClbenchError: see `fill`.
    """
    own = network.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} is unknown" for key in state if key not in own]
    problems += [
        f"{key} is {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems += [
        f"{key} is {str(state[key].dtype).removeprefix('torch.')} instead of a float"
        for key in own
        if key in state and not state[key].is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ClbenchError(
            f"the weights in {source} do not fit {name}: {', '.join(problems[:3])}{more}; "
            f"choose their architecture with --set backbone.model=NAME"
        )


def _read(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not zipfile.is_zipfile(path):
        raise _damaged(path)
    torchscript = is_torchscript(path)
    check_archive(path, torchscript=torchscript)
    if torchscript:
        return Checkpoint(read_torchscript(path), torchscript=True)
    # Mapped, a tensor has the bytes that are there; else what the file states would be allocated.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        return Checkpoint({})
    state = {str(name): value for name, value in content.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return Checkpoint(state)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise _damaged(path) from error
    return Checkpoint(state, {key: _decode(value) for key, value in metadata.items()})


def _decode(value: str) -> Any:
    """A metadata value, decoded where it is JSON; other tools' plain words stay as they are."""
    try:
        return load_json(value)
    except ValueError:
        return value


def _damaged(path: Path) -> ClbenchError:
    return ClbenchError(
        f"{path} is not a readable weights file: truncated or damaged, or saved by PyTorch before "
        "1.6; download it again, or save its state_dict() anew"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
