"""How large a file may become when it is read: in proportion to what it is on disk.

Compressed files, and files that only state how much they hold, can ask for a thousand times their
size. No data set and no weights need that.
"""

from __future__ import annotations

from typing import Final

GROWTH: Final = 20
"""Times that a file may grow when it is read or unpacked; images hardly shrink, lists do."""
SLACK: Final = 64 * 2**20
"""Bytes that any file may become, since small files of text or one colour shrink more."""


def most_bytes(size: int) -> int:
    """Bytes that a file of `size` bytes may become in memory or on disk.

    >>> most_bytes(0) // 2**20, most_bytes(10**9) // 10**9
    (64, 20)
    """
    return GROWTH * size + SLACK
