"""How commands end when something goes wrong."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from clbench.core.errors import ClbenchError

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a user's mistake into one line and exit code 2, Ctrl-C into a hint and 130."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except ClbenchError as error:
            for line in str(error).splitlines():
                sys.stderr.write(f"clbench: {line}\n")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            sys.stderr.write("clbench: interrupted; the same command goes on where it stopped\n")
            raise typer.Exit(130) from None

    return wrapped
