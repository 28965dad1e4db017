"""Attributes of a method that a resumed run would not get back."""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declaration_of
from clbench.clip.shortcuts.constancy import bit_digests, is_readable
from clbench.core.errors import ClbenchError
from clbench.core.method import Method, method_name

Place = tuple[str, str]
"""Dotted name of a module, and an attribute of it."""

_INTERNAL = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device)
_ABSENT = object()


class Attributes:
    """Watches the plain attributes of a method and of every module in it.

    Plain are numbers, texts, tensors and arrays that are no parameters or buffers, and collections
    of these. A module that is added or replaced later is not watched.

    Args:
        method: the method, just prepared: as a process finds it that goes on with a run.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._fresh: dict[Place, Any] = {}
        self._watched = {name: type(module) for name, module in method.named_modules()}
        for place, value in self._plain():
            if not _holds_tensors(value):  # what does would be copied for nothing
                self._fresh[place] = copy.deepcopy(value)
        self._marked = self._frozen()

    def mark(self) -> None:
        """Compare with the attributes as they are now, from now on."""
        self._marked = self._frozen()

    def require_kept(self, when: str, but: frozenset[str] = frozenset()) -> None:
        """Refuse changes since the last mark that the state dict does not bring back.

        Changed attributes are set to what a fresh process has, the method loads its own state, and
        what does not become the present value again would be lost. All is put back afterwards.

        Args:
            when: for the message.
            but: attributes of the method itself that may change.

        Raises:
            ClbenchError: names an attribute and the cure.
        """
        now, modules = self._frozen(), self._modules()
        changed = sorted(
            place
            for place in now.keys() | self._marked.keys()
            if place[0] in modules
            and now.get(place) != self._marked.get(place)
            and (place[0] or place[1] not in but)
        )
        if not changed:
            return
        found = self._after_loading(changed)
        lost = [place for place in changed if found.get(place) != now.get(place)]
        if lost:
            name, attribute = lost[0]
            shown = f"self.{name}.{attribute}" if name else f"self.{attribute}"
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise ClbenchError(
                f"method {method_name(self._method)!r} changed {shown}{more} {when}, which its "
                "state dict does not bring back, so a resumed run would lose it: make it a buffer, "
                "return it from get_extra_state, or list it in `transient` if begin_task sets it "
                "anew"
            )

    def _after_loading(self, changed: list[Place]) -> dict[Place, Hashable]:
        """The attributes that the state dict makes out of those of a fresh process."""
        state, modules = self._method.state_dict(), self._modules()
        present = {
            (name, attribute): value
            for name, module in modules.items()
            for attribute, value in vars(module).items()
            if attribute not in _INTERNAL
        }
        try:
            for place in changed:
                _put(modules[place[0]], place[1], self._fresh.get(place, _ABSENT))
            self._method.load_state_dict(state)
            return self._frozen()
        except Exception:  # loading counts on something that a fresh process does not have
            return {}
        finally:
            for name, module in modules.items():
                for attribute in set(vars(module)) - _INTERNAL:
                    _put(module, attribute, present.get((name, attribute), _ABSENT))
            for place, value in present.items():
                _put(modules[place[0]], place[1], value)

    def _modules(self) -> dict[str, nn.Module]:
        """The watched modules that are still there."""
        present = self._method.named_modules()
        return {name: module for name, module in present if self._watched.get(name) is type(module)}

    def _plain(self) -> Iterator[tuple[Place, Any]]:
        """All watched attributes whose values can be compared."""
        for name, module in self._modules().items():
            declaration = declaration_of(module)
            hidden = _INTERNAL | (declaration.ignored if declaration else frozenset())
            for attribute, value in vars(module).items():
                if attribute not in hidden and _is_plain(value):
                    yield (name, attribute), value

    def _frozen(self) -> dict[Place, Hashable]:
        registered = {id(tensor): name for name, tensor in _registered(self._method).items()}
        return {place: _frozen(value, registered) for place, value in self._plain()}


def drop_transient(method: Method) -> None:
    """Delete what a method declares to set anew for every task, so that nobody relies on it."""
    for name in method.transient:
        vars(method).pop(name, None)


def _registered(method: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, which the state dict holds: attributes may refer to them."""
    return {**dict(method.named_parameters()), **dict(method.named_buffers())}


def _put(module: nn.Module, attribute: str, value: Any) -> None:
    if value is _ABSENT:
        vars(module).pop(attribute, None)
    else:
        vars(module)[attribute] = value


def _parts(value: Any) -> list[Any] | None:
    """What a collection is made of; None if it is no collection of a known kind."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return [*value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _is_plain(value: Any, around: frozenset[int] = frozenset()) -> bool:
    """Whether a value can be compared; one that holds itself cannot."""
    if isinstance(value, Tensor):
        return is_readable(value)
    if isinstance(value, (*_PLAIN, np.ndarray)):
        return True
    parts, inside = _parts(value), around | {id(value)}
    return (
        parts is not None
        and id(value) not in around
        and all(_is_plain(part, inside) for part in parts)
    )


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or any(map(_holds_tensors, _parts(value) or ()))


def _frozen(value: Any, registered: Mapping[int, str]) -> Hashable:
    """A hashable copy of a plain value, in which registered tensors stand by name."""
    if isinstance(value, Tensor):
        name = registered.get(id(value))
        return ("registered", name) if name is not None else bit_digests([value])
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, _PLAIN):
        return type(value), repr(value)
    if isinstance(value, set | frozenset):
        return frozenset(_frozen(part, registered) for part in value)
    return tuple(_frozen(part, registered) for part in _parts(value) or ())
