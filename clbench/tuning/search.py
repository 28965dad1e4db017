"""Which settings are tried: quasi-random points, in a range that moves to where the optimum is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from scipy.stats import qmc

from clbench.tuning.space import MOST, Range, Space

FIRST, BLOCK = 8, 4
"""Trials before the first look at where the best lies, and from one look to the next."""
LARGEST: Final = 10
"""Binary logarithm of the number of points there are."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        values: what was searched, by dotted key.
        score: what it reached, larger is better; None where training diverged.
    """

    values: Values
    score: float | None


class Search:
    """Asks for settings block by block, and is told what they reached.

    The points are those of a Sobol sequence, the same for every method, so that all methods try the
    same learning rates. After eight trials, and after every four more, it looks at the best: if it
    is the outermost in the learning rate, or else in another range, the next four points lie
    beyond, in a range extended by a quarter of its first width. Which points come depends on the
    declared space and on what earlier trials reached only, so a search goes on wherever it
    stopped, and a larger budget adds to a smaller one. Nobody gets more trials for it.

    Args:
        space: what is searched; an empty one has a single point.
        budget: number of trials.

    Attributes:
        space: what is searched by now, extensions included.
        trials: those that were told.
        extended: dimensions whose range was extended.
    """

    def __init__(self, space: Space, budget: int) -> None:
        self.space = dict(space)
        self.budget = budget if space else 1
        self.trials: list[Trial] = []
        self.extended: list[str] = []

    def ask(self) -> list[Values]:
        """The settings to try next; none if the budget is spent."""
        done = len(self.trials)
        count = min(FIRST if done == 0 else BLOCK, self.budget - done)
        if count <= 0:
            return []
        part = dict(self.space)
        if done and (found := self._beyond()) is not None:
            name, beyond = found
            before = self.space[name]
            assert isinstance(before, Range)
            part[name], self.space[name] = beyond, before.spanning(beyond)
            self.extended = list(dict.fromkeys([*self.extended, name]))
        return [
            {name: part[name].at(share) for name, share in zip(part, point, strict=False)}
            for point in points()[done : done + count]
        ]

    def tell(self, values: Sequence[Values], scores: Sequence[float | None]) -> None:
        """What the settings that were asked for reached."""
        self.trials += [Trial(v, s) for v, s in zip(values, scores, strict=True)]

    @property
    def best(self) -> int | None:
        """Number of the best trial; None if all diverged."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def ranked(self) -> list[int]:
        """Numbers of the trials that did not diverge, the best first."""
        scored = [(t.score, n) for n, t in enumerate(self.trials) if t.score is not None]
        return [n for _, n in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]

    def edges(self, chosen: int | None) -> dict[str, str]:
        """By dimension, why a trial is the outermost one; empty where it lies between others.

        Args:
            chosen: its number; None if all diverged.
        """
        if chosen is None:
            return dict.fromkeys(self.space, "all diverged")
        values = self.trials[chosen].values
        return {
            name: dimension.edge(values[name], [t.values[name] for t in self.trials])
            for name, dimension in self.space.items()
        }

    def _beyond(self) -> tuple[str, Range] | None:
        """The first dimension in which to look further, and where; None if none."""
        for name, dimension in self.space.items():
            if not isinstance(dimension, Range):
                continue
            values = [trial.values[name] for trial in self.trials]
            best = min(values) if self.best is None else values[self.best]
            if (beyond := dimension.widened(best, values)) is not None:
                return name, beyond
        return None


@functools.cache
def points() -> Sequence[Sequence[float]]:
    """Points of the unit cube: a Sobol sequence, moved by half the spacing of the first eight.

    Those eight then lie in the middle of an eighth each of every dimension, and two in each
    quarter of every two; without the move the first is a corner.
    """
    found = qmc.Sobol(MOST + 1, scramble=False).random_base2(LARGEST)
    return [tuple(point) for point in ((found + 0.5 / FIRST) % 1).tolist()]
