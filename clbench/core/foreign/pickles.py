"""Looking through a pickle before anything reads it: what it names, and what it would allocate.

A pickle is a program. Its reader calls what the program names, and makes room for memo entries and
texts as long as the program says. Everything is refused here that the pickles of data sets and
weights, all of protocol 2, have no use for.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import Final

PROTOCOL: Final = 2
CALLED: Final = frozenset({"GLOBAL", "INST"})
"""Operations that name something to call."""
STORED: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
"""Operations that keep a value under a number, for which readers make a table."""


def check_pickle(content: bytes, allowed: Callable[[str, str], bool]) -> None:
    """Refuse a pickle that names something foreign, or would take more memory than its size.

    Args:
        content: the pickle; what follows it is not looked at.
        allowed: whether a name, as module and attribute, may be in it.

    Raises:
        pickle.UnpicklingError: a name is not allowed, or the pickle asks for too much.
        ValueError: it is damaged.

    >>> check_pickle(pickle.dumps(print), lambda module, name: False)
    Traceback (most recent call last):
    ...
    _pickle.UnpicklingError: its protocol 4 is not allowed
    """
    for operation, argument, _ in pickletools.genops(content):
        protocol = int(argument or 0) if operation.name == "PROTO" else operation.proto
        if protocol > PROTOCOL:
            raise pickle.UnpicklingError(f"its protocol {protocol} is not allowed")
        if operation.name in CALLED:
            module, _, name = str(argument).partition(" ")
            if not allowed(module, name):
                raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        if operation.name in STORED and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it asks for a table of {argument} entries")
