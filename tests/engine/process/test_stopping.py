"""One request to stop is obeyed at leisure, the second at once."""

from __future__ import annotations

import os
import signal

import pytest

from clbench.core.errors import Stopped
from clbench.engine.process import stopping
from clbench.engine.process.stopping import StopRequest


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(
    ("signals", "seconds", "codes"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 0.5, []),
        ((signal.SIGTERM, signal.SIGTERM), 1.5, [143]),
        ((signal.SIGINT, signal.SIGINT), 0.5, [130]),
        ((signal.SIGTERM, signal.SIGINT), 0.5, [130]),
        ((signal.SIGINT, signal.SIGTERM), 0.5, [143]),
    ],
)
def test_a_batch_system_that_repeats_itself_is_not_impatient(
    exits: list[int],
    monkeypatch: pytest.MonkeyPatch,
    signals: tuple[int, int],
    seconds: float,
    codes: list[int],
) -> None:
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with StopRequest() as stop:
        os.kill(os.getpid(), signals[0])
        now[0] += seconds
        os.kill(os.getpid(), signals[1])
        with pytest.raises(Stopped):
            stop.check()
    assert exits == codes
