"""What is searched: a method's learning rate, and what its recipe adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.hyperparameters import limits
from clbench.core.method import Method
from clbench.registry import BenchmarkRecipe

LR: Final = "train.lr"
MOST: Final = 2
"""Dimensions that a recipe may add to the learning rate."""
WIDENING: Final = 0.25
"""Share of its first width by which a range is extended at a time."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers, in which points lie evenly, or evenly in their logarithm.

    Attributes:
        low: its lower end.
        high: its upper end.
        log: whether values are spread evenly in their logarithm.
        width: of the range as it was declared, on the scale on which values are spread.
        limits: beyond which values make no sense.
    """

    low: float
    high: float
    log: bool = False
    width: float = 0.0
    limits: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if not self.width:
            object.__setattr__(self, "width", self._scaled(self.high) - self._scaled(self.low))

    def at(self, share: float) -> float:
        """The value at a share of the way from the lower to the upper end, to four digits.

        >>> Range(1e-5, 1e-1, log=True).at(0.5)
        0.001
        """
        low, high = self._scaled(self.low), self._scaled(self.high)
        value = self._unscaled(low + share * (high - low))
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def widened(self, best: float, values: list[float]) -> Range | None:
        """The part in which to go on if the best of all values is the outermost.

        Returns:
            The range from the best value to a new end, a quarter of the first width beyond the old
            one; None if the best lies between others, or at a limit.
        """
        step = WIDENING * self.width
        if best == min(values):
            low = max(self._unscaled(self._scaled(self.low) - step), self.limits[0])
            return replace(self, low=low, high=best) if low < self.low else None
        if best == max(values):
            high = min(self._unscaled(self._scaled(self.high) + step), self.limits[1])
            return replace(self, low=best, high=high) if high > self.high else None
        return None

    def spanning(self, other: Range) -> Range:
        """The range with another one beside it."""
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))

    def edge(self, chosen: float, values: list[float]) -> str:
        """Why none of the values lies beyond the chosen one; empty if it lies between others."""
        if min(values) < chosen < max(values):
            return ""
        smaller = chosen == min(values)
        if self.widened(chosen, values) is None:
            return f"values end at {self.low if smaller else self.high:g}"
        return f"no {'smaller' if smaller else 'larger'} value was tried"

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _unscaled(self, value: float) -> float:
        return float(f"{math.exp(value) if self.log else value:.4g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """A few values, in order.

    Attributes:
        values: two or more.
    """

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the way along them.

        >>> Choice((8, 16, 32)).at(0.5)
        16
        """
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def edge(self, chosen: Any, values: list[Any]) -> str:
        """Why none of the values lies beyond the chosen one; empty if it lies between others."""
        if chosen == self.values[0]:
            return "the first of the list"
        return "the last of the list" if chosen == self.values[-1] else ""

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Dimension = Range | Choice
Space = dict[str, Dimension]

RATE: Final = Range(1e-5, 1e-1, log=True)
"""Learning rates that are tried of every method whose optimizer is AdamW or Adam."""


def space_of(cls: type[Method], benchmark: BenchmarkRecipe) -> Space:
    """What is searched of a method: the learning rate first, if it takes any steps.

    Args:
        cls: the method.
        benchmark: on which.

    Raises:
        ClbenchError: the recipe's ``search`` names what does not exist or too much, or is no range.
    """
    found: dict[str, Any] = {}
    for layer in registry.method_recipe(cls).layers(benchmark, benchmark.options):
        found |= layer.get("search", {})
    space: Space = {} if "trains-nothing" in cls.traits else {LR: RATE}
    for key, given in found.items():
        space[key] = _dimension(cls, key, given)
    if len(space.keys() - {LR}) > MOST:
        raise ClbenchError(
            f"recipe {cls.name!r}: 'search' may add {MOST} dimensions to the learning rate, got "
            f"{', '.join(space.keys() - {LR})}"
        )
    return space


def _dimension(cls: type[Method], key: str, given: Any) -> Dimension:
    where = f"recipe {cls.name!r}: search: {key}"
    section, _, name = key.partition(".")
    if key != LR and (section != "method" or name not in cls.schema()):
        valid = [LR, *(f"method.{name}" for name in cls.schema())]
        raise unknown_name(f"key of 'search' in recipe {cls.name!r}", key, valid)
    if isinstance(given, list) and len(given) > 1:
        return Choice(tuple(given))
    ends = {"low", "high"}
    if not isinstance(given, Mapping) or not ends <= given.keys() <= ends | {"log"}:
        raise ClbenchError(
            f"{where}: expected a list of values or {{low: ..., high: ..., log: true}}, "
            f"got {given!r}"
        )
    bounds = (0.0, math.inf) if key == LR else limits(cls.schema()[name])
    low, high, log = float(given["low"]), float(given["high"]), bool(given.get("log", False))
    if not bounds[0] <= low < high <= bounds[1] or (log and low <= 0):
        raise ClbenchError(f"{where}: {low:g} to {high:g} is no range within its bounds")
    return Range(low, high, log, limits=bounds)
