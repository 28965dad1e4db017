"""Switching shortcuts off: ``CLBENCH_PLAIN=dropout,lowrank_product`` in the environment.

The names are those of the files that hold the shortcuts. Results agree up to rounding, and where
random numbers are drawn, in distribution. The variable is recorded in the provenance of a run.
"""

from __future__ import annotations

import os
from typing import Literal

VARIABLE = "CLBENCH_PLAIN"
Shortcut = Literal["allocator", "dropout", "lowrank_product"]


def is_plain(name: Shortcut) -> bool:
    """Whether a shortcut is switched off.

    >>> is_plain("dropout")
    False
    """
    return name in os.environ.get(VARIABLE, "").split(",")
