"""What launchers cost themselves: ``python -m tests.launch.overhead local 1000``.

The cells leave a result and do nothing else, so that all the rest is the launcher's. With
``--runs`` they are runs of clbench: zero-shot CLIP, a method that does nothing, on 24 images; then
the planning, the checks and the loading of the results count, too.

A measurement is kept in ``reports/launch/overhead.json`` in place of an earlier one of the same
kind, and the table in ``docs/scale.md`` is written from the file; without arguments, only the table
is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from clbench.launch.cells import Cell, Launcher, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.local import Local
from clbench.launch.engines.machine import Machine
from clbench.launch.engines.ray import Ray
from clbench.launch.records import Records

ROOT = Path(__file__).parents[2]
FILE = ROOT / "reports" / "launch" / "overhead.json"
PAGE = ROOT / "docs" / "scale.md"
NOTHING = 'mkdir -p "$4/$2" && echo "{\\"status\\": \\"complete\\"}" >"$4/$2/result.json"'
PROGRAM = ("/bin/sh", "-c", NOTHING)


def make_cells(runs_dir: Path, count: int) -> list[Cell]:
    """Cells that leave a result."""
    keys = [f"toy/nothing/seed{seed}-0123abcd" for seed in range(count)]
    return [
        Cell(
            ("run", "-", key, "--runs-dir", str(runs_dir)),
            runs_dir / key,
            key,
            "toy",
            "nothing",
            i,
            "",
        )
        for i, key in enumerate(keys)
    ]


def measure_cells(name: str, count: int, folder: Path) -> dict[str, float]:
    """The cost of making cells that do nothing."""
    records = Records(folder)
    machine = Machine(os.cpu_count() or 1, 2**34)  # as it is, without the import that looks at it
    launcher: Launcher = (
        Local(records, machine, PROGRAM) if name == "local" else Ray(records, None, PROGRAM)
    )
    cells = make_cells(folder, count)
    before = Spent()
    failures = Drive(launcher, records).run(cells, launcher.fitted(cells, Resources(cpus=1)))
    spent = before.since()
    assert not failures
    assert all(cell.finished() for cell in cells)
    return spent


def measure_runs(name: str, count: int, folder: Path) -> dict[str, float]:
    """The cost of runs that do nothing, from their plan to their results."""
    from clbench import config
    from clbench.launch.make import Grid, Wanted
    from clbench.launch.plan import plan
    from tests.small_runs import write_tasks

    tasks = write_tasks(folder / "tasks")
    overrides = {
        **config.backbone_settings("mini"),
        "data_root": str(folder / "cache"),
        "device": "cpu",
    }
    wanted = Wanted(name, Resources(cpus=1))
    before = Spent()
    planned = plan(f"folder:{tasks}", ["zeroshot"], range(count), overrides=overrides)
    grid = Grid(planned, folder / "runs", wanted)
    planning = before.since()["driver_seconds"]
    made = grid.make(Console(stderr=True), quiet=True)
    spent = before.since()
    assert not made.problems
    assert len(made.results) == count
    return {**spent, "planning_seconds": planning}


class Spent:
    """Time and memory from its making on."""

    def __init__(self) -> None:
        self._wall, self._used = time.perf_counter(), _used()

    def since(self) -> dict[str, float]:
        """Wall time, processor time of this process, and its peak memory in bytes."""
        return {
            "wall_seconds": time.perf_counter() - self._wall,
            "driver_seconds": _used() - self._used,
            "driver_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _used() -> float:
    """Processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """The measurements in Markdown."""
    lines = [
        "| launcher | cells | number | processor time of the driver, each | of it to plan | "
        "wall time, each | driver's peak memory |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for one in measured:

        def each(key: str, one: Mapping[str, Any] = one) -> str:
            return f"{1000 * one[key] / one['cells']:.1f} ms" if key in one else ""

        memory = f"{one['driver_bytes'] / 1e6:.0f} MB"
        row = [one["launcher"], one["kind"], str(one["cells"]), each("driver_seconds")]
        row += [each("planning_seconds"), each("wall_seconds"), memory]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def show(mark: str, text: str) -> None:
    """Put a text into the guide, between the lines that are named like it."""
    block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    page = PAGE.read_text("utf-8")
    PAGE.write_text(block.sub(rf"\g<1>\n{text}\n\g<2>", page), encoding="utf-8")


def read() -> list[dict[str, Any]]:
    """What was measured."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else []
    return found


def main() -> None:
    """Measure, and write the file and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("launcher", nargs="?", choices=["local", "ray"])
    parser.add_argument("cells", nargs="?", type=int, default=1000)
    parser.add_argument("--runs", action="store_true", help="runs of clbench")
    asked = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so that nobody imports torch to look for devices
    measured = read()
    if asked.launcher is not None:
        kind = "runs that do nothing" if asked.runs else "processes that do nothing"
        with tempfile.TemporaryDirectory() as folder:
            measure = measure_runs if asked.runs else measure_cells
            spent = measure(asked.launcher, asked.cells, Path(folder))
        head = {"launcher": asked.launcher, "kind": kind, "cells": asked.cells}
        load = {"cores": os.cpu_count(), "load": [round(load, 1) for load in os.getloadavg()]}
        measured = [m for m in measured if (m["launcher"], m["kind"]) != (asked.launcher, kind)]
        measured.append({**head, **spent, **load})
        measured.sort(key=lambda one: (one["kind"], one["launcher"]))
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(table(measured))
    show("overhead", table(measured))


if __name__ == "__main__":
    main()
