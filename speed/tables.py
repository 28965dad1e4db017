"""Parts of the generated pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def machine_line(result: Mapping[str, Any]) -> str:
    """When and on what a result was measured."""
    machine = result["machine"]
    where = (
        f"Measured {result['measured']} on {machine['device']}, {machine['threads']} threads, "
        f"torch {machine['torch']}"
    )
    rates = machine.get("operations_per_second")
    if rates is None:  # the machine was only used for ratios
        return f"{where}.\n"
    return (
        f"{where}: {rates['fp32'] / 1e9:.0f} GFLOP/s in fp32, "
        f"{rates['fp64'] / 1e9:.0f} in fp64, {rates['bf16'] / 1e9:.0f} in bf16, "
        f"{machine['bytes_per_second'] / 1e9:.0f} GB/s.\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
