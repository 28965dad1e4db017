"""Which images and captions for probes are there, and what to put where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.datamodules.fetching.inventory import State
from clbench.datamodules.probing import imagenet, karpathy


def survey_probes(root: Path) -> list[State]:
    """Look at the data sets of the probes ``general`` and ``retrieval`` without opening images.

    Args:
        root: data root.
    """
    return [
        _state(name, put, root, kind.locate)
        for kind in (imagenet, karpathy)
        for name, put in kind.put_where(root).items()
    ]


def _state(name: str, put: str, root: Path, locate: Callable[[str, Path], Path | None]) -> State:
    todo = f"by hand: {put}"
    try:
        found = locate(name, root)
    except ClbenchError as error:
        return State(name, "incomplete", str(error), todo)
    if found is None:
        return State(name, "missing", "for probes only", todo)
    return State(name, "present", str(found), "")
