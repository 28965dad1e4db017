"""Commands load no module for nothing, and look for no garbage among those they have loaded."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

UNUSED: Final[Mapping[str, Mapping[str, Any]]] = {
    "scipy.signal": {"hamming": None},  # torchmetrics adds this name where it is missing
    "wandb": {},  # loaded by timm, which open_clip loads
}
"""Modules that companions of PyTorch load and do not use, with what they look for in them."""


@contextmanager
def loading() -> Iterator[None]:
    """Load PyTorch and its companions without collecting garbage.

    Modules are no garbage, but their half a million objects would be searched again and again
    while they are made, which takes a quarter of the time, and half a second whenever all is
    searched later. So what the first block in a process has made is never searched.
    """
    first, enabled = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        with _put_off(UNUSED):
            yield
        if first:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


class _Later(ModuleType):
    """Stands for a module that is loaded when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # asked of all modules by those who look for a piece of source
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _put_off(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Let the import of modules alone not load them in the block."""
    later = {
        name: _Later(name)
        for name in modules
        if name not in sys.modules and find_spec(name.partition(".")[0])
    }
    for name, module in later.items():
        vars(module).update(modules[name], __spec__=ModuleSpec(name, None))
    sys.modules.update(later)
    try:
        yield
    finally:
        for name, module in later.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def leave(code: int) -> None:
    """End the process without taking the modules apart, which takes seconds.

    All that a program may count on at its end still happens: exit functions and flushed streams.
    Where another thread is still at work, the process ends in the usual way.
    """
    others = (t for t in threading.enumerate() if t is not threading.main_thread())
    if any(not thread.daemon for thread in others):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more, or the disk is full
        code = code or 1
    os._exit(code)
