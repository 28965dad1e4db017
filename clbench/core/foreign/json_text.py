"""Reading JSON that somebody else may have written."""

from __future__ import annotations

import json
import math
from typing import Any, Final

DIGITS: Final = 18
"""Digits of the longest whole number that is read: what every reader of JSON can hold."""
DEPTH: Final = 40
"""How deep lists and mappings may be nested."""


def load_json(text: str) -> Any:
    """The value that a JSON text stands for, if a result or a record can have it.

    Raises:
        ValueError: it is not JSON, nested too deeply, or has a number that no file of clbench has.

    >>> load_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> load_json("[1e999]")
    Traceback (most recent call last):
    ...
    ValueError: 1e999 is too large
    """
    try:
        value = json.loads(
            text, parse_int=_whole, parse_float=_finite, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _depth(value) > DEPTH:
        raise ValueError("nested too deeply")
    return value


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.20} is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number (missing values are null)")


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        nested = [node for node in level if isinstance(node, dict | list)]
        depth += bool(nested)
        level = [
            child
            for node in nested
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return depth
