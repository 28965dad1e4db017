"""What a launcher itself costs: ``python -m tests.launch.overhead local 1000``.

The cells do nothing but leave a result, so that all the rest is the launcher's: processor time of
the driver per cell, wall time per cell, and the driver's peak memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from clbench.launch.cells import Cell, Launcher, Resources
from clbench.launch.driving import Drive
from clbench.launch.engines.local import Local
from clbench.launch.engines.ray import Ray
from clbench.launch.records import Records

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


def measure(name: str, count: int) -> str:
    """One line on what a launcher costs."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder))
        launcher: Launcher
        launcher = (
            Local(records, program=PROGRAM) if name == "local" else Ray(records, None, PROGRAM)
        )
        cells = make_cells(records.runs_dir, count)
        before, started = _used(), time.perf_counter()
        failures = Drive(launcher, records).run(cells, launcher.fitted(cells, Resources(cpus=1)))
        wall, used = time.perf_counter() - started, _used() - before
        assert not failures
        assert all(cell.finished() for cell in cells)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{name}: {count} cells, driver {1000 * used / count:.1f} ms of processor time per cell, "
        f"{1000 * wall / count:.1f} ms of wall time per cell, driver's peak memory {peak:.0f} MB"
    )


def _used() -> float:
    """Processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.stdout.write(f"{measure(sys.argv[1], int(sys.argv[2]))}\n")
