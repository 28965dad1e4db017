"""Commands start and end without looking for garbage among the modules they have loaded."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
        yield
        if first:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


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
