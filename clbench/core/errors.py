"""The one exception users see, and the wording of "unknown name" messages."""

import difflib
from collections.abc import Iterable


class ClbenchError(Exception):
    """A mistake the user can mend: shown as one line, without a traceback, with exit code 2."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> ClbenchError:
    """Build the error for a misspelt name, with the nearest valid one.

    >>> print(unknown_name("method", "nusaa", ["nusa", "lora"]))
    unknown method 'nusaa': did you mean 'nusa'? (valid: lora, nusa)
    """
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]!r}?" if nearest else ""
    listing = f"(valid: {', '.join(names)})" if names else "(none are defined)"
    return ClbenchError(f"unknown {kind} {name!r}{hint} {listing}")


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
