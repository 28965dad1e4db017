"""What a function asks of PyTorch, without the function: its operators, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Made(NamedTuple):
    """Stands for a tensor that an earlier operator made: which operator, which of its outputs."""

    operator: int
    output: int


class _Call(NamedTuple):
    """An operator to be called.

    Attributes:
        operator: the operator.
        arguments: positional ones, constants in their places.
        keywords: keyword arguments, all of them constants.
        handed_on: which positional arguments are outputs of which operators.
        last_used: operators whose outputs nobody needs afterwards.
    """

    operator: Any
    arguments: list[Any]
    keywords: dict[str, Any]
    handed_on: list[tuple[int, _Made]]
    last_used: list[int]


class Operators:
    """The operators that a function has called, to be called again.

    What one makes and another takes is handed on, and given up when nobody needs it any more, so
    that memory is used as in the function. Tensors made without an operator, as by NumPy, and those
    in lists are constants.
    """

    def __init__(self, calls: list[_Call], inference: bool) -> None:
        self._calls = calls
        self._inference = inference

    @classmethod
    def of(cls, function: Callable[[], object]) -> Operators:
        """Call a function and note its operators, those of its backward pass included."""
        with _Recorder() as recorder:
            function()
        made: dict[tuple[object, ...], _Made] = {}
        calls: list[_Call] = []
        users: dict[int, int] = {}
        for index, (operator, arguments, keywords, outputs) in enumerate(recorder.calls):
            handed_on = [
                (i, maker)
                for i, argument in enumerate(arguments)
                if isinstance(argument, Tensor) and (maker := made.get(_memory(argument)))
            ]
            constants = [*arguments]
            for i, maker in handed_on:
                constants[i] = None
                users[maker.operator] = index
            calls.append(_Call(operator, constants, keywords, handed_on, []))
            for i, output in enumerate(_as_list(outputs)):
                if isinstance(output, Tensor):
                    made[_memory(output)] = _Made(index, i)
        for index in range(len(calls)):
            calls[users.get(index, index)].last_used.append(index)
        return cls(calls, recorder.inference)

    def __len__(self) -> int:
        return len(self._calls)

    def __call__(self) -> list[Any]:
        """Call them all; returns what the last one makes."""
        outputs: dict[int, list[Any]] = {}
        last: list[Any] = []
        with torch.inference_mode(self._inference), torch.no_grad():
            for index, (operator, arguments, keywords, handed_on, unused) in enumerate(self._calls):
                taken = [*arguments]
                for i, (maker, output) in handed_on:
                    taken[i] = outputs[maker][output]
                outputs[index] = last = _as_list(operator(*taken, **keywords))
                for maker in unused:
                    del outputs[maker]
        return last


class _Recorder(TorchDispatchMode):
    """Notes operators with their arguments and outputs, all of which it keeps alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it none
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.inference = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.inference = torch.is_inference_mode_enabled()
        outputs = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs


def _as_list(outputs: Any) -> list[Any]:
    return [*outputs] if isinstance(outputs, tuple | list) else [outputs]


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Where a tensor's elements are: autograd hands on tensors as new objects."""
    place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return *place, tensor.dtype, tuple(tensor.shape), tensor.stride()
