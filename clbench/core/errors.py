"""The one exception users see, and the wording of "unknown name" messages."""

import difflib
from collections.abc import Iterable
from typing import ClassVar, Final


class ClbenchError(Exception):
    """A mistake the user can mend: shown as one line, without a traceback.

    Attributes:
        code: exit code of a command that ends with it.
    """

    code: ClassVar[int] = 2


class DivergedError(ClbenchError):
    """Training went wrong with these settings: the loss or the answers are not finite."""

    code = 3


RESEMBLES: Final = 0.65
"""Share of equal characters from which on a name may be meant by another."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> ClbenchError:
    """Build the error for a misspelt name, with the nearest valid one if any resembles it.

    >>> print(unknown_name("method", "nusaa", ["nusa", "lora"]))
    unknown method 'nusaa': did you mean 'nusa'? (valid: lora, nusa)
    >>> print(unknown_name("key", "method.colour", ["method.rank", "method.dropout"]))
    unknown key 'method.colour' (valid: method.dropout, method.rank)
    """
    names = sorted(valid)
    nearest = max(names, key=lambda other: _likeness(name, other), default="")
    similar = _likeness(name, nearest) >= RESEMBLES
    hint = f": did you mean {nearest!r}?" if similar else ""
    listing = f"(valid: {', '.join(names)})" if names else "(none are defined)"
    return ClbenchError(f"unknown {kind} {name!r}{hint} {listing}")


def _likeness(name: str, other: str) -> float:
    """From 0 to 1; what both have before the last dot does not make them alike."""
    (section, _, key), (other_section, _, other_key) = name.rpartition("."), other.rpartition(".")
    pair = (key, other_key) if section == other_section else (name, other)
    one, another = (text.lower() for text in pair)
    return difflib.SequenceMatcher(None, one, another).ratio()


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Refuse a hyper-parameter that breaks a rule.

    >>> require(0 >= 1, "rank", ">= 1", 0)
    Traceback (most recent call last):
    ...
    clbench.core.errors.ClbenchError: rank must be >= 1, got 0
    """
    if not condition:
        raise ClbenchError(f"{name} must be {rule}, got {value!r}")


class Stopped(KeyboardInterrupt):
    """The user or the system asked the process to stop; what was done is kept.

    Attributes:
        signum: number of the signal; the process ends with exit code 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
