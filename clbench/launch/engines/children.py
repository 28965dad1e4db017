"""Starts runs through a nursery, a process that ends them when this one is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from clbench.launch.engines.nursery import import_path

SERVER = "clbench.launch.engines.nursery"
LOST = -signal.SIGKILL
"""Exit code of runs whose nursery was killed."""


class Children:
    """Runs that were started through one nursery.

    Args:
        environment: variables that hold for all of them from the first import on.
        warm: whether what runs import is imported once for all.
        folder: where they run; here by default.
    """

    def __init__(
        self, environment: Mapping[str, str], *, warm: bool, folder: Path | None = None
    ) -> None:
        # A session of its own: Ctrl-C in a terminal is for this process, which decides.
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", SERVER, *(["--warm"] if warm else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": import_path()},
            start_new_session=True,
            cwd=folder,
        )
        self._input = b""
        self.running: set[str] = set()

    def fileno(self) -> int:
        """Descriptor that can be read when something has ended."""
        assert self._server.stdout is not None
        return self._server.stdout.fileno()

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        """Start a run; its output is appended to a log."""
        self.running.add(name)
        self._tell({"start": name, "command": command, "environment": environment, "log": str(log)})

    def signal(self, number: int) -> None:
        """Send a signal to all that run."""
        for name in self.running:
            self._tell({"signal": name, "number": number})

    def ended(self) -> list[tuple[str, int]]:
        """Names and exit codes of runs that have ended; call it when there is something to read."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:  # the nursery was killed, and what it started is out of reach
            lost, self.running = sorted(self.running), set()
            return [(name, LOST) for name in lost]
        *lines, self._input = (self._input + data).split(b"\n")
        answers: list[dict[str, Any]] = [json.loads(line) for line in lines]
        ended = [(answer["ended"], answer["code"]) for answer in answers if "ended" in answer]
        self.running -= {name for name, _ in ended}
        return ended

    @property
    def alive(self) -> bool:
        """Whether runs can be started."""
        return self._server.poll() is None

    def hang_up(self) -> None:
        """Ask what still runs to stop."""
        assert self._server.stdin is not None
        self._server.stdin.close()

    def wait(self) -> None:
        """Until all have stopped; interrupted once more, they end at once."""
        assert self._server.stdout is not None
        self._server.stdout.close()
        try:
            self._server.wait()
        except KeyboardInterrupt:
            self._server.terminate()
            self._server.wait()

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(f"{json.dumps(order)}\n".encode())
            self._server.stdin.flush()
        except BrokenPipeError:
            pass  # `ended` will tell


def wait_for(children: Iterable[Children], seconds: float) -> list[tuple[str, int]]:
    """Names and exit codes of what ends first, or of nothing after so many seconds."""
    busy = {group.fileno(): group for group in children if group.running}
    ready = wait(list(busy), seconds) if busy else []
    return [end for number in ready if isinstance(number, int) for end in busy[number].ended()]
