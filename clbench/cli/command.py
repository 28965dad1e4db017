"""How commands print results, and how they handle errors and interruptions."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer
from rich.console import Console

from clbench.core.errors import ClbenchError, Stopped
from clbench.core.foreign.console import SafeConsole, print_line
from clbench.core.foreign.names import printable
from clbench.core.redaction import redact
from clbench.engine.process.environment import UnheardError, alone, follows

if TYPE_CHECKING:
    from clbench.core.results.result import RunResult
    from clbench.report.tables.grid import View

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a user's mistake into one line and its exit code, a signal into a hint and 128 + it."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _terminable():
                function(*args, **kwargs)
        except ClbenchError as error:
            for line in () if _is_silent(error) else str(error).splitlines():
                sys.stderr.write(f"clbench: {printable(redact(line))}\n")
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt as stop:
            number = getattr(stop, "signum", signal.SIGINT)
            if not follows():
                sys.stderr.write(f"clbench: interrupted; {_how_to_go_on()}\n")
            raise typer.Exit(128 + number) from None

    return wrapped


def _is_silent(error: ClbenchError) -> bool:
    """Whether the first of several processes says it."""
    return follows() and not isinstance(error, UnheardError)


def show_results(
    results: list[RunResult], *, matrices: bool = False, view: View | None = None
) -> None:
    """Print the summary tables, and every matrix if asked for."""
    from clbench.naming import titled
    from clbench.report.console import matrix_console, render_console
    from clbench.report.tables.grid import WHOLE

    out = console()
    for result in results if matrices else ():
        out.print(f"{result.method.name}, seed {result.seed}: accuracy in percent", style="bold")
        out.print(matrix_console(result.matrix, out.width))
    shown = titled(results) if view is None else results
    out.print(render_console(shown, view or WHOLE))


def directories(results: list[RunResult], runs_dir: Path) -> list[Path]:
    """Where the runs of results lie."""
    from clbench import api

    return [api.run_directory(result, runs_dir) for result in results]


def show_directories(results: list[RunResult], runs_dir: Path) -> None:
    """Print where the runs of results lie."""
    for path in directories(results, runs_dir):
        say(f"run directory: {path}")


def say(text: str) -> None:
    """Print a text as it is, however long."""
    print_line(console(), text)


def console() -> Console:
    """Standard output; wide enough for tables where it is not a terminal."""
    out = SafeConsole()
    return out if out.is_terminal else SafeConsole(width=120)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, also before or after the training."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _how_to_go_on() -> str:
    program = Path(sys.argv[0])
    known = program.stem == "clbench" or program.parts[-2:] == ("clbench", "__main__.py")
    if not (known and alone()):
        return "run the same command to resume"
    return f"resume with: {redact(shlex.join(['clbench', *sys.argv[1:]]))}"
