"""How results show themselves in notebooks: by what the layer of reports provides.

Results are plain data and know no tables or figures. `clbench.api` names who draws them, so every
result that the public interface returns has `RunResult.plot` and is a table in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from clbench.core.errors import ClbenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clbench.core.results.result import RunResult


class Display(Protocol):
    """Draws results."""

    def html(self, result: RunResult) -> str:
        """Summary and accuracy matrix as tables."""
        ...

    def plot(self, result: RunResult, kind: str) -> Figure:
        """A figure of one result.

        Raises:
            ClbenchError: there is no such kind, or the result has no numbers for it.
        """
        ...


_CHOSEN: list[Display] = []


def show_with(display: Display) -> None:
    """Name who draws results from now on."""
    _CHOSEN[:] = [display]


def display() -> Display:
    """Who draws results.

    Raises:
        ClbenchError: nobody was named.
    """
    if not _CHOSEN:
        raise ClbenchError("results are drawn by clbench.api, which was not imported")
    return _CHOSEN[0]
