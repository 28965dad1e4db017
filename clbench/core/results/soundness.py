"""Whether result files agree with each other, image by image and number by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import CorrectRow, disagreement, read_rows
from clbench.core.results.result import RunResult

RECORDED: Final = 2
"""Schema of the first results that have a record of single images."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        what: the thing checked.
        text: what was found.
        sound: whether that is as it should be.
    """

    what: str
    text: str
    sound: bool = True


def require_sound(file: Path) -> RunResult:
    """Load a result and refuse it where it contradicts its per-image record.

    Raises:
        ClbenchError: the result or the record is damaged, edited, or they disagree.
    """
    result = RunResult.load(file)
    rows = counted_rows(file, result)
    if rows and (problem := disagreement(rows, result.matrix)):
        raise ClbenchError(f"{file}: {problem}")
    return result


def check_bits(file: Path, result: RunResult) -> Iterator[Finding]:
    """Whether the record of single images agrees with every accuracy of the result."""
    rows = counted_rows(file, result)
    if not rows:
        promised = result.schema_version >= RECORDED
        text = "the per-image record is missing: nothing shows that the accuracies were measured"
        yield Finding(
            "images", text if promised else "older: has no per-image record", not promised
        )
        return
    problem = disagreement(rows, result.matrix)
    total = sum(len(bits) for row in rows.values() for bits in row.values())
    yield Finding("images", problem or f"{total} answers agree with every cell", problem is None)


def counted_rows(file: Path, result: RunResult) -> dict[int, CorrectRow]:
    """The rows that the result counts; one more may be on disk if the run stopped in between."""
    return {t: row for t, row in read_rows(file).items() if t <= result.matrix.learned}


def same_numbers(first: RunResult, second: RunResult) -> list[str]:
    """Where two results of the same settings differ; empty if nowhere.

    Returns:
        One line per difference: weights, data, steps, accuracies, what both have from probes.
    """
    a, b = first.matrix, second.matrix
    if a.tasks != b.tasks:
        return [f"tasks: {', '.join(a.tasks)} and {', '.join(b.tasks)}"]
    both: list[tuple[str, Any, Any]] = [
        ("the backbone's weights", first.backbone.fingerprint, second.backbone.fingerprint),
        ("the images", first.data.splits, second.data.splits),
        ("the numbers of steps", first.cost.steps, second.cost.steps),
    ]
    lines = [f"{what} differ" for what, one, other in both if one != other]
    different = ~((a.values == b.values) | (np.isnan(a.values) & np.isnan(b.values)))
    if different.any():
        largest = np.nanmax(np.abs(a.values - b.values)[different])
        lines.append(
            f"{int(different.sum())} of {different.size} accuracies differ, "
            f"by up to {100 * largest:.2f} percentage points"
        )
    both_probed = sorted(first.probes.keys() & second.probes.keys())
    return lines + [
        f"what probe {name} measured differs"
        for name in both_probed
        if first.probes[name].values != second.probes[name].values
    ]
