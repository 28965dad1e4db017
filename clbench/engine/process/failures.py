"""Failures of methods, memory and data as one clear line; the traceback goes into the log."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch

from clbench.core.errors import ClbenchError, DivergedError
from clbench.core.method import Method, method_name

NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")
DEAD_PROCESS = ("closed by peer", "Connection reset", "heartbeat timeout", "Broken pipe")
DEAD_WORKER = ("exited unexpectedly", "is killed by signal")
UNDECOMPOSABLE: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
KEPT = "finished work is kept; run the same command to resume"


class LostProcessError(ClbenchError):
    """One of the processes that train together is gone."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another of the processes that train together is gone."""
    if isinstance(error, LostProcessError):
        return True
    return isinstance(error, RuntimeError) and _any_in(DEAD_PROCESS, str(error))


@contextmanager
def explained(
    activity: str, relief: str, method: Method, log: Callable[[str], None]
) -> Iterator[None]:
    """Turn errors inside the block whose cause is known into a `ClbenchError`.

    Args:
        activity: what goes on, e.g. ``training on digits``.
        relief: the setting that needs less memory, e.g. ``train.batch_size (now 64)``.
        method: errors out of its source file are told with file and line.
        log: receives the traceback.
    """
    try:
        yield
    except ClbenchError as error:
        if not _from_worker(error):
            raise
        log("".join(traceback.format_exception(error)).rstrip())
        raise ClbenchError(_said(error)) from error
    except Exception as error:
        message = _message(error, activity, relief, method)
        if message is None:
            raise
        log("".join(traceback.format_exception(error)).rstrip())
        raise _kind(error)(message) from error


def _kind(error: Exception) -> type[ClbenchError]:
    if isinstance(error, UNDECOMPOSABLE):
        return DivergedError
    return LostProcessError if is_lost(error) else ClbenchError


def _message(error: Exception, activity: str, relief: str, method: Method) -> str | None:
    text = " ".join(_said(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _any_in(NO_MEMORY, text):
        return f"out of memory while {activity}: lower {relief}; {KEPT}"
    if isinstance(error, RuntimeError) and _any_in(DEAD_WORKER, text):
        return (
            f"a data-loading process died while {activity}, often for lack of memory: lower "
            f"--set workers=...; {KEPT}"
        )
    if is_lost(error):
        return f"one of the processes that train together died while {activity}; {KEPT}"
    if isinstance(error, UNDECOMPOSABLE):
        return (
            f"a decomposition failed while {activity}, as it does where weights have diverged: try "
            f"a lower learning rate (--set train.lr=...); the traceback is in log.txt ({text})"
        )
    if place := blame(error.__traceback__, method):
        kind = type(error).__name__
        return (
            f"method {method_name(method)!r} failed while {activity}, {place}: {kind}: {text}; "
            f"the traceback is in log.txt, and {KEPT}"
        )
    if isinstance(error, OSError):
        return f"{activity} failed: {text}; {KEPT}"
    return None


def blame(trace: TracebackType | None, method: Method) -> str | None:
    """The innermost line of the method's own source in a traceback, as ``file:line``."""
    files = {
        function.__code__.co_filename
        for cls in type(method).__mro__[: type(method).__mro__.index(Method)]
        for function in vars(cls).values()
        if hasattr(function, "__code__")
    }
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(trace)
        if frame.filename in files
    ]
    return lines[-1] if lines else None


def _from_worker(error: Exception) -> bool:
    """Whether a data-loading process passed the error on, with its traceback for a message."""
    return str(error).startswith(f"Caught {type(error).__name__} in DataLoader worker process")


def _said(error: Exception) -> str:
    """What an error says, without the traceback of another process."""
    text = str(error)
    return text.rpartition(f"{type(error).__name__}: ")[2].strip() if _from_worker(error) else text


def _any_in(signs: tuple[str, ...], text: str) -> bool:
    return any(sign in text for sign in signs)
