"""What is kept and what is deleted, from the measured section `keep` of a CPU and a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED = 1.1
"""An item stays if a step without it takes this many times the time or the memory."""
HEAD = [
    "item",
    "what it assumes",
    "time, CPU",
    "memory, CPU",
    "time, GPU",
    "memory, GPU",
    "decision",
]
QUANTITIES = ("time_ratio", "peak_ratio")
ASSUMED = {
    "own backward pass of low-rank layers": (
        "W, b and the scale are frozen; gradients are taken once; masks stay as they are between "
        "the passes; types under autocast are handled by hand"
    ),
    "query, key and value as one node": (
        "the three layers have one input, one scale and one dropout, and nobody hooks them"
    ),
    "own dropout masks": (
        "p is a multiple of 2^-16; other random numbers than those of PyTorch's dropout will do"
    ),
    "freed memory stays in the process": (
        "glibc, and no other process needs the memory between two steps"
    ),
}
"""Items that are decided on; others in the files are shown beside them."""
DELETED = {
    "last block at the token that is read": (
        "features are read at one token, all else in the block is computed per token, nobody "
        "hooks it, and open_clip keeps its internal functions",
        "deleted: it left out 6 to 7 % of the operations, and without it a step on a quiet CPU "
        "with 2 threads took 1.03 times the time and 1.06 times the memory, so that a larger "
        "ratio is noise",
    ),
}
"""Items that are gone, with what they assumed and why."""


def rows(cpu: Mapping[str, Any], gpu: Mapping[str, Any] | None) -> list[list[str]]:
    """Rows of the table, a ratio for each method in every cell."""
    table = []
    for item in cpu["methods"][0]["rows"]:
        name = item["variant"]
        if name == "shipped":
            continue
        measured = [_ratios(cpu, name), _ratios(gpu, name) if gpu else {}]
        cells = [_cell(ratios.get(q)) for ratios in measured for q in QUANTITIES]
        assumed, decision = DELETED.get(name, (ASSUMED.get(name, ""), ""))
        if name in ASSUMED:
            decision = _decision(measured)
        table.append([name, assumed, *cells, decision])
    return table


def _ratios(result: Mapping[str, Any], name: str) -> dict[str, list[float]]:
    """Without the item over shipped, of every method."""
    found = [
        row for method in result["methods"] for row in method["rows"] if row["variant"] == name
    ]
    return {q: [row[q] for row in found if q in row] for q in QUANTITIES}


def _cell(ratios: list[float] | None) -> str:
    return " / ".join(f"{ratio:.2f}" for ratio in ratios) if ratios else "not measured"


def _decision(measured: list[dict[str, list[float]]]) -> str:
    if any(ratio >= ASKED for ratios in measured for each in ratios.values() for ratio in each):
        return "kept"
    return "deleted" if all(measured) else "open until measured on a GPU"
