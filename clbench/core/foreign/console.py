"""The console that everything is printed on: names from outside cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from clbench.core.foreign.names import printable


class SafeConsole(Console):
    """A rich console that shows control characters in what it prints.

    Its own colours and cursor movements come after this, or are marked as such.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of something printed, with their texts made printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def print_line(console: Console, text: str) -> None:
    """Print a text as it is, however long: not wrapped, and nothing in it is markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
