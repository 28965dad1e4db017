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
    from clbench.evaluating import evaluate as evaluate
    from clbench.exporting import export as export
    from clbench.tidy import results as results
    from clbench.trained import load_method as load_method
    from clbench.trained import load_model as load_model

__all__ = [
    "ClbenchError",
    "Method",
    "compare",
    "evaluate",
    "export",
    "load_method",
    "load_model",
    "load_result",
    "rerun",
    "results",
    "run",
]

_HOMES = {
    "ClbenchError": "clbench.core.errors",
    "Method": "clbench.core.method",
    "compare": "clbench.api",
    "evaluate": "clbench.evaluating",
    "export": "clbench.exporting",
    "load_method": "clbench.trained",
    "load_model": "clbench.trained",
    "load_result": "clbench.api",
    "rerun": "clbench.api",
    "results": "clbench.tidy",
    "run": "clbench.api",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: `clbench --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
