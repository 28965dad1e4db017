"""A process that makes runs for another one, and ends them gracefully when that one is gone.

It reads one JSON object per line, ``{"start": name, "command": [...], "log": path}`` or
``{"signal": name, "number": 15}``, and answers ``{"started": name, "pid": 1}`` and
``{"ended": name, "code": 0}``. At the end of its input, it asks every run to stop, and waits.

With ``--warm`` it imports what runs need once, and forks: a run then starts in moments. Nothing but
imports happens before the fork, so that no thread, no device and no generator is shared. A fork
leaves without taking down what was imported, which would take longer than many a run: every page
that it clears would first have to be copied.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = (sys.executable, "-P", "-m", "clbench.cli.app")
"""How a run is started where it is not forked."""
PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG`` of Linux."""
UNSTARTED = 127
"""Exit code, as shells have it, of what could not be started."""
STOP = (signal.SIGTERM, signal.SIGINT)
COMMAND_LINE = "clbench.cli.app"
NEEDED = (COMMAND_LINE, "clbench.api", "clbench.report.console")


def import_path() -> str:
    """For ``PYTHONPATH``: what this process can import, those that it starts can."""
    return os.pathsep.join(filter(None, sys.path))


class Nursery:
    """The children of this process.

    Args:
        answers: descriptor to write to.
        warm: whether runs are forks of this process.
    """

    def __init__(self, answers: int, warm: bool) -> None:
        self._answers = answers
        self._warm = warm
        self._pids: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._wake, self._bell = os.pipe()
        for descriptor in (self._wake, self._bell):
            os.set_blocking(descriptor, False)
        self._input = b""
        self._ending = False

    def serve(self) -> list[str] | None:
        """Until the input ends and all children have ended.

        Returns:
            In a forked child, the arguments of the command line that it is to become.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOP:
            signal.signal(number, lambda *_: self._stop())
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(0, selectors.EVENT_READ)
            while not self._ending or self._pids:
                for key, _ in selector.select():
                    if key.fd == self._wake:
                        with suppress(BlockingIOError):
                            os.read(self._wake, 4096)
                    elif not self._ending and (become := self._read()) is not None:
                        return become
                if self._ending and 0 in selector.get_map():
                    selector.unregister(0)
                self._reap()
        return None

    def _read(self) -> list[str] | None:
        data = os.read(0, 1 << 16)
        if not data:
            self._stop()
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "start" in order:
                try:
                    become = self._start(order)
                except OSError as error:
                    sys.stderr.write(f"clbench: cannot start {order['start']}: {error}\n")
                    self._answer({"ended": order["start"], "code": UNSTARTED})
                    continue
                if become is not None:
                    return become
            elif order["signal"] in self._pids:
                self._signal(self._pids[order["signal"]], order["number"])
        return None

    def _start(self, order: dict[str, Any]) -> list[str] | None:
        name, command, log = order["start"], order["command"], Path(order["log"])
        environment = {**os.environ, **order["environment"]}
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if self._warm and tuple(command[: len(PROGRAM)]) == PROGRAM:
                # No handler of this process may run in the child.
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
                pid = os.fork()
                if pid == 0:
                    self._leave(output, environment)
                    return list(command[len(PROGRAM) :])
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
            else:
                self._processes[name] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
                pid = self._processes[name].pid
        finally:
            os.close(output)
        self._pids[name] = pid
        self._answer({"started": name, "pid": pid})
        return None

    def _leave(self, output: int, environment: dict[str, str]) -> None:
        """In a forked child: be a process like any other."""
        os.setsid()
        _end_with_parent()
        signal.set_wakeup_fd(-1)
        for number, handler in (
            (signal.SIGCHLD, signal.SIG_DFL),
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        ):
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        empty = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((empty, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for descriptor in (empty, self._answers, self._wake, self._bell):
            os.close(descriptor)
        os.environ.update(environment)

    def _signal(self, pid: int, number: int) -> None:
        """A polite signal goes to the process itself, SIGKILL to all that it started."""
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)

    def _stop(self) -> None:
        """Ask all to stop; those that were asked before end at once."""
        self._ending = True
        for pid in list(self._pids.values()):
            self._signal(pid, signal.SIGTERM)

    def _reap(self) -> None:
        for name, pid in list(self._pids.items()):
            # Its process group is cleared before its number is free for others.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            self._signal(pid, signal.SIGKILL)
            del self._pids[name]
            if process := self._processes.pop(name, None):
                code = process.wait()
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            self._answer({"ended": name, "code": code})

    def _answer(self, content: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # nobody listens any more
            os.write(self._answers, f"{json.dumps(content)}\n".encode())


def _end_with_parent() -> None:
    """Have this process asked to stop should its parent be killed, where the system offers that."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM, 0, 0, 0)


def main() -> None:
    """Serve standard input and output, or become a run."""
    warm = sys.argv[1:] == ["--warm"]
    answers = os.dup(1)
    os.dup2(2, 1)  # what imports print is no answer
    if warm:
        for name in NEEDED:
            importlib.import_module(name)
        gc.freeze()  # no fork walks through what all of them share
    become = Nursery(answers, warm).serve()
    if become is not None:
        _run(become)


def _run(arguments: list[str]) -> NoReturn:
    """Be `clbench` with these arguments, in a forked child, and end as `multiprocessing` does."""
    sys.argv = ["clbench", *arguments]
    try:
        importlib.import_module(COMMAND_LINE).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
