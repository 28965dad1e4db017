"""How much a method keeps, measured rather than believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from clbench.clip.layers.together import declaration_of
from clbench.clip.model import CLIP
from clbench.core.method import Footprint, Method


def measured(method: Method, backbone: int) -> Footprint:
    """A method's footprint, in which what it stores is at least what its state dict holds.

    Args:
        method: the method between two tasks.
        backbone: bytes of the backbone's own tensors, see `state_bytes`.
    """
    stated = method.footprint()
    kept = max(0, state_bytes(method) - backbone - _idle_bytes(method))
    return replace(stated, stored=max(stated.stored, kept))


def state_bytes(module: CLIP | Method) -> int:
    """Bytes of all tensors in a state dict, each memory counted once."""
    found = {
        (t.untyped_storage().data_ptr(), t.storage_offset(), t.nbytes): t.nbytes
        for t in _tensors(module.state_dict())
    }
    return sum(found.values())


def _idle_bytes(method: nn.Module) -> int:
    """Bytes of tensors that hold nothing at the moment, such as the factors of merged updates."""
    total = 0
    for module in method.modules():
        declaration = declaration_of(module)
        if declaration is not None and declaration.idle(module):
            own = [*module._parameters.values(), *module._buffers.values()]
            total += sum(tensor.nbytes for tensor in own if tensor is not None)
            if type(module).get_extra_state is not nn.Module.get_extra_state:
                total += sum(t.nbytes for t in _tensors(module.get_extra_state()))
    return total


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
