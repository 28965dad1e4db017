"""State of any module or optimizer as tensors beside plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clbench.core.errors import ClbenchError

TENSOR = "tensor:"
"""Begins the JSON string that stands for a tensor; strings that begin so are escaped."""
PLAIN = "plain:"
ITEMS = "items:"
"""The only key of a JSON mapping that stands for one with other keys than strings."""


def pack(tree: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """Split a tree of mappings, lists, tensors and plain values.

    Returns:
        Tensors on the CPU by path, none of which share memory, and the tree as JSON values in
        which strings stand for the tensors.

    Raises:
        ClbenchError: something in the tree is neither a tensor nor a JSON value.

    >>> import torch
    >>> pack({"w": torch.ones(1), "n": [1, None]})
    ({'w': tensor([1.])}, {'w': 'tensor:w', 'n': [1, None]})
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def visit(path: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            while path in tensors:  # a key with a slash in it may look like another's path
                path += "'"
            tensor = value.detach().cpu().contiguous()
            address = tensor.untyped_storage().data_ptr()
            whole = tensor.untyped_storage().nbytes() == tensor.nbytes
            tensors[path] = tensor if whole and address not in seen else tensor.clone()
            seen.add(address)
            return TENSOR + path
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value) or ITEMS in value:
                # Such as the milestones of a schedule, which are counted by step.
                return {ITEMS: visit(path, [[key, v] for key, v in value.items()])}
            return {key: visit(f"{path}/{key}" if path else key, v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [visit(f"{path}/{i}", v) for i, v in enumerate(value)]
        if isinstance(value, str):
            return PLAIN + value if value.startswith((TENSOR, PLAIN)) else value
        if value is None or isinstance(value, bool | int | float):
            return value
        raise ClbenchError(
            f"a checkpoint cannot keep {path}, a {type(value).__name__}: state is made of tensors, "
            "numbers, strings, lists and mappings"
        )

    return tensors, visit("", tree)


def unpack(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """Inverse of `pack`; tuples come back as lists.

    Raises:
        KeyError: a tensor of the tree is missing.
    """
    if isinstance(tree, dict) and set(tree) == {ITEMS}:
        return dict(unpack(tensors, tree[ITEMS]))
    if isinstance(tree, dict):
        return {key: unpack(tensors, value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(tensors, value) for value in tree]
    if isinstance(tree, str):
        if tree.startswith(TENSOR):
            return tensors[tree.removeprefix(TENSOR)]
        return tree.removeprefix(PLAIN)
    return tree
