"""Made-up runs of a study: results with the answers to single images, and the settings of a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clbench.core.results.correctness import SUFFIX, encode_row
from clbench.studies.runs import Run
from tests.made_up import make_result

TASKS = ("arrows", "clocks")
_NUMBERS = itertools.count()


def make_run(
    folder: Path,
    method: str,
    seed: int,
    rows: Sequence[Sequence[Sequence[bool]]],
    tasks: Sequence[str] = TASKS,
    probes: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """A run whose result and answers lie in a folder.

    Args:
        folder: where the files are written.
        method: name.
        seed: training seed.
        rows: for rows 0 to T, whether each image of each task is right.
        tasks: names of the T tasks.
        probes: name to `ProbeRecord`.
        cost: fields of `CostRecord` that the run has.
        settings: keys with two underscores for dots, e.g. ``method__rank=8``.
    """
    values = [[float(np.mean(images)) for images in row] for row in rows]
    result = make_result(
        method,
        seed,
        values,
        tasks=tuple(tasks),
        counts=tuple(len(images) for images in rows[0]),
        probes=probes or {},
        **(cost or {}),
    )
    config: dict[str, Any] = {
        "method": {"name": method, "params": {}},
        "benchmark": {"name": "mini", "options": {}},
        "train": {},
        "backbone": {},
    }
    for key, value in settings.items():
        section, _, rest = key.replace("__", ".").partition(".")
        inner = {"method": "params", "benchmark": "options"}.get(section)
        if not rest:
            config[section] = value
        else:
            (config[section][inner] if inner else config[section])[rest] = value
    file = folder / f"run-{next(_NUMBERS)}.json"
    result.model_copy(update={"config": config}).save(file)
    records = [encode_row(t, dict(zip(tasks, row, strict=True))) for t, row in enumerate(rows)]
    file.with_suffix(SUFFIX).write_bytes(b"".join(records))
    return Run(file, type(result).load(file))
