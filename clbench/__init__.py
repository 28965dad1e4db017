"""clbench compares continual-learning methods on CLIP.

>>> import clbench
>>> result = clbench.run(method="nusa", benchmark="mini", seed=0)  # doctest: +SKIP
>>> result.summary["last"]  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clbench.api import compare as compare
    from clbench.api import load_result as load_result
    from clbench.api import rerun as rerun
    from clbench.api import run as run
    from clbench.core.errors import ClbenchError as ClbenchError
    from clbench.core.method import Method as Method

__all__ = ["ClbenchError", "Method", "compare", "load_result", "rerun", "run"]

_HOMES = {
    "ClbenchError": "clbench.core.errors",
    "Method": "clbench.core.method",
    "compare": "clbench.api",
    "load_result": "clbench.api",
    "rerun": "clbench.api",
    "run": "clbench.api",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: `clbench --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
