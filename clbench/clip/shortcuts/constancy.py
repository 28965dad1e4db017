"""Whether what a part of the model computes can have changed since it was computed last.

Nothing here trusts version counters, object ids or promises: PyTorch counts no edits through
``.data``, NumPy views or fused optimizers, and ids are used again. The key of a result holds the
state of every module that took part and a hash of the bits of every tensor, taken anew at every
look-up. On the CPU that reads 10 GB/s, so it costs a percent or two of what it saves.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from clbench.clip.layers.together import declaration_of, is_pure

_INTERNAL = frozenset(vars(nn.Module())) - {"training"} | {"_compiled_call_impl"}
"""Attributes in which `nn.Module` keeps its parts and hooks."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device)
_WORDS = 2**20


def fingerprint(module: nn.Module, without: Collection[nn.Module] = ()) -> Hashable | None:
    """A value that changes whenever a module could give another result for the same input.

    It covers types, names and plain attributes of the module and everything in it, and the bits of
    all their tensors.

    Args:
        module: root of the modules that take part.
        without: submodules that do not.

    Returns:
        None where that cannot be told: a part does not declare that it is a function of its
        tensors and attributes (`clbench.clip.layers.together`), is watched or changed by a hook,
        or keeps something else than plain values.
    """
    if torch.nn.modules.module._global_forward_hooks:
        return None
    if torch.nn.modules.module._global_forward_pre_hooks:
        return None
    state: list[Hashable] = []
    tensors: list[Tensor] = []
    try:
        for name, part in _parts(module, frozenset(map(id, without)), ""):
            if not is_pure(part):
                return None
            kind: type = type(part)
            state.append((name, kind, *_state_of(part, tensors)))
    except _OpaqueError:
        return None
    digests = bit_digests(tensors)
    return None if digests is None else (tuple(state), digests)


def lasting(state: Hashable | None) -> str | None:
    """A fingerprint as text that equal modules have in every process on the same kind of device."""
    return None if state is None else xxhash.xxh3_128_hexdigest(repr(state).encode())


def bit_digests(tensors: Sequence[Tensor]) -> tuple[Hashable, ...] | None:
    """A hash of each tensor's bits, together with its type, shape and device.

    Every position has a weight of its own, so that moved rows are seen as well as new values.

    Returns:
        One value per tensor, to be compared with others of the same process; None where a tensor
        has no bits that could be read (sparse or fake tensors, and subclasses).
    """
    if not all(is_readable(tensor) for tensor in tensors):
        return None
    values: list[int | Tensor] = [
        _hash_on_cpu(t) if t.device.type == "cpu" else _hash_on_device(t) for t in tensors
    ]
    # One transfer for all tensors on a device.
    moved = [value for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(moved).tolist() if moved else ())
    return tuple(
        (t.dtype, tuple(t.shape), t.device, next(read) if isinstance(value, Tensor) else value)
        for t, value in zip(tensors, values, strict=True)
    )


def numerics(device: torch.device) -> tuple[Hashable, ...]:
    """What a result depends on besides tensors: how PyTorch is told to compute."""
    kind = device.type
    return (
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        torch.is_inference_mode_enabled(),  # its tensors cannot take part in training
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


class Memo:
    """Results by all that they depend on; those that were asked for longest ago go first.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """A copy of the remembered result, or a new one.

        Args:
            key: everything that the result depends on.
            compute: returns the result. One with a graph is not kept, because a graph can be
                used for one backward pass only.
        """
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key].clone()
        result = compute()
        if not result.requires_grad:
            if len(self._entries) >= self._capacity:
                self._entries.popitem(last=False)
            self._entries[key] = result.clone()
        return result


class _Same:
    """Equal to itself and to others that hold the same object, which it keeps alive."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


class _OpaqueError(Exception):
    """A module keeps something whose changes cannot be seen."""


def _parts(
    module: nn.Module, without: frozenset[int], name: str
) -> Iterator[tuple[str, nn.Module]]:
    """A module and all in it by dotted name; one that stands in two places comes twice."""
    yield name, module
    for child_name, child in module._modules.items():
        if child is not None and id(child) not in without:
            yield from _parts(child, without, f"{name}.{child_name}")


def _state_of(module: nn.Module, tensors: list[Tensor]) -> Iterator[Hashable]:
    """All that a module keeps besides its children and hooks; its tensors are collected."""
    declaration = declaration_of(module)
    assert declaration is not None
    for name, value in vars(module).items():
        if name in _INTERNAL or name in declaration.ignored:
            continue
        by_identity = name in declaration.by_identity
        yield name, _Same(value) if by_identity else _frozen(value, tensors)
    for kind in (module._parameters, module._buffers):
        for name, tensor in kind.items():
            yield name, tensor is not None
            if tensor is not None:
                tensors.append(tensor)


def _frozen(value: Any, tensors: list[Tensor]) -> Hashable:
    """A hashable copy of plain values; tensors are collected, and stand as a number."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        tensors.append(value)
        return Tensor, len(tensors)
    if isinstance(value, Mapping):
        return dict, tuple((key, _frozen(v, tensors)) for key, v in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_frozen(v, tensors) for v in value)
    if isinstance(value, set | frozenset) and all(isinstance(v, _PLAIN) for v in value):
        return frozenset, frozenset(value)
    raise _OpaqueError


def is_readable(tensor: Tensor) -> bool:
    """Whether a tensor has bits that can be read."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
    )


def _hash_on_cpu(tensor: Tensor) -> int:
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype is torch.bfloat16:  # unknown to NumPy
        plain = plain.view(torch.int16)
    return xxhash.xxh3_64_intdigest(plain.contiguous().numpy().data)


def _hash_on_device(tensor: Tensor) -> Tensor:
    """``sum_ij (2 i + 1) c_j w_ij`` over chunks i of whole numbers w, modulo 2^64; ``()`` int64."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    words = flat.view(torch.uint8) if flat.element_size() < 4 else flat.view(torch.int32)
    if not len(words):
        return torch.zeros((), dtype=torch.int64, device=tensor.device)
    weights = _weights(tensor.device)
    chunks = words.split(_WORDS)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for i, chunk in enumerate(chunks):
        total += (chunk * weights[: len(chunk)]).sum() * (2 * i + 1)
    return total


_WEIGHTS: dict[torch.device, Tensor] = {}


def _weights(device: torch.device) -> Tensor:
    """``(_WORDS,)`` fixed odd numbers, int64."""
    if device not in _WEIGHTS:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(-(2**62), 2**62, (_WORDS,), generator=generator)
        _WEIGHTS[device] = (2 * drawn + 1).to(device)
    return _WEIGHTS[device]
