"""Whether what a part of the model computes can have changed since it was computed last."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from clbench.clip.dropout import Dropout

KNOWN = ("torch.nn.", "open_clip.", "clbench.clip.")
"""Packages whose modules compute a function of their input, tensors and training mode."""

Version = tuple[tuple[int, int, int], ...]
Contents = tuple[int, ...]


def version(tensors: Sequence[Tensor]) -> Version | None:
    """What changes whenever a weight does: in place, by another tensor, or by a move.

    Free of any reading, so that every step can ask. Edits through ``.data`` are not counted by
    PyTorch; `contents` sees them.

    Returns:
        A value to compare with others of the same process; None where PyTorch does not count
        changes, which is so for tensors made in inference mode.
    """
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors)


def contents(tensors: Sequence[Tensor]) -> Contents:
    """The `bit_sums`, to be compared: one pass over the weights, for use once per task."""
    return tuple(bit_sums(tensors).tolist())


def bit_sums(tensors: Sequence[Tensor]) -> Tensor:
    """``(N,)`` int64: the sum of each tensor's bits read as whole numbers."""
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [
        tensor.detach()
        .contiguous()
        .view(-1)
        .view(words[tensor.element_size()])
        .sum(dtype=torch.int64)
        for tensor in tensors
    ]
    return torch.stack(sums) if sums else torch.zeros(0, dtype=torch.int64)


def is_function_of_weights(modules: Iterable[nn.Module]) -> bool:
    """Whether equal weights and inputs surely give equal outputs.

    That is not known of modules from elsewhere, which may look at anything, of hooks, and of
    dropout in training.
    """
    return not any(
        not type(part).__module__.startswith(KNOWN)
        or part._forward_hooks
        or part._forward_pre_hooks
        or (isinstance(part, nn.Dropout | Dropout) and part.training and part.p > 0)
        for module in modules
        for part in module.modules()
    )


def numerics(device: torch.device) -> tuple[Hashable, ...]:
    """What a result depends on besides tensors: the autocast type, and inference mode.

    A tensor made in inference mode cannot take part in training.
    """
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return autocast, torch.is_inference_mode_enabled()


class Memo:
    """Results that are computed once per state of the weights they depend on.

    Args:
        capacity: how many are kept; the oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._version: Version | None = None
        self._entries: dict[Hashable, tuple[object, Tensor]] = {}

    def renew(self, current: Version | None) -> None:
        """Forget everything unless the weights are what they were."""
        if current is None or current != self._version:
            self.clear()
        self._version = current

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def get(self, key: Hashable, owner: object, compute: Callable[[], Tensor]) -> Tensor:
        """The remembered result, or a new one.

        Args:
            key: what it depends on besides the weights.
            owner: kept alive beside the result, where the key holds its id.
            compute: returns the result. One with a graph is not kept, because a graph can be
                used for one backward pass only.
        """
        if (found := self._entries.get(key)) is not None:
            return found[1]
        result = compute()
        if not result.requires_grad:
            if len(self._entries) >= self._capacity:
                self._entries.pop(next(iter(self._entries)))
            self._entries[key] = owner, result
        return result
