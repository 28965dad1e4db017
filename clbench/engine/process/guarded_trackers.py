"""Trackers of a run that can neither stop nor change it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from clbench.core.results.result import RunResult
from clbench.core.results.tracker import Tracker


class GuardedTrackers:
    """All trackers of a run as one. One that fails is left out from then on.

    Args:
        trackers: what to pass events on to.
        note: receives one line per tracker that failed.
    """

    name = "all trackers"

    def __init__(self, trackers: Sequence[Tracker], note: Callable[[str], None]) -> None:
        self._active = list(trackers)
        self._note = note
        self._begun = False

    def begin(self, result: RunResult, folder: Path) -> None:
        """See `Tracker.begin`."""
        self._begun = True
        self._each(lambda tracker: tracker.begin(result, folder))

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.losses`."""
        self._each(lambda tracker: tracker.losses(step, values))

    def row(self, result: RunResult) -> None:
        """See `Tracker.row`."""
        self._each(lambda tracker: tracker.row(result))

    def end(self, finished: bool) -> None:
        """See `Tracker.end`."""
        if self._begun:
            self._each(lambda tracker: tracker.end(finished))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._active):
            try:
                with _randomness_kept():
                    call(tracker)
            except (Exception, SystemExit) as error:  # some libraries exit where they should raise
                self._active.remove(tracker)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self._note(f"{tracker.name} failed and was dropped; the run continues ({reason})")


@contextmanager
def _randomness_kept() -> Iterator[None]:
    """Put back the global generators, from which methods and data transforms draw."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
