"""Ctrl-C and the termination signal: finish the step, save, end. Twice: end at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from clbench.core.errors import Stopped
from clbench.engine.process.environment import place

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 1.0
"""Seconds within which several signals are one. Batch systems send more than one SIGTERM, and
torchrun passes on the Ctrl-C that its processes have received themselves."""
SHOW_CURSOR = b"\x1b[?25h"


class StopRequest:
    """While entered, notes the first SIGINT or SIGTERM; the second ends the process at once.

    Files are replaced in one step, so whatever is being written when the process ends, the last
    checkpoint and result stay good. In other threads than the main one nothing is noted.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self.signum = None
        if _in_main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _in_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """Take the signals (again: Lightning puts its own handlers in front)."""
        if self._before and _in_main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def check(self) -> None:
        """Stop here if that was asked for.

        Raises:
            Stopped: a signal has come.
        """
        if self.signum is not None:
            raise Stopped(self.signum)

    def _receive(self, number: int, _: FrameType | None) -> None:
        repeated = number == self.signum and time.monotonic() - self._since < TOGETHER
        if repeated and (number == signal.SIGTERM or place() is not None):
            return
        if self.signum is not None:
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, SHOW_CURSOR)  # progress bars hide it
            os._exit(128 + number)
        self.signum = number
        self._since = time.monotonic()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
