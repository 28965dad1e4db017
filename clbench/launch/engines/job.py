"""What an array job of Slurm runs: one cell, which saves and goes back into the queue if it must.

Started by `clbench.launch.engines.slurm`, with the file that lists the cells of the array.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from clbench.launch.cells import Cell, Outcome, outcome_of
from clbench.launch.engines.children import LOST, Children, wait_for
from clbench.launch.records import Records, environment_of
from clbench.launch.standing import holder

BEAT = 1.0
"""Seconds between two looks at whether a signal has come."""


def main() -> None:
    """Make the cell that the environment names, and go back into the queue if preempted."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cell = Cell.of(plan["cells"][int(os.environ["SLURM_ARRAY_TASK_ID"])])
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    records = Records(Path(plan["runs_dir"]))
    records.started(cell, "slurm", f"{socket.gethostname()}, job {job}")
    code = _make(cell, [*plan["program"], *cell.command], plan["threads"], records.log(cell))
    outcome = outcome_of(cell, code, bool(holder(cell.path)))
    records.ended(cell, outcome, code)
    if outcome is Outcome.PREEMPTED:
        subprocess.run(["scontrol", "requeue", job], check=False)
    sys.exit(code if code >= 0 else 128 - code)


def _make(cell: Cell, command: list[str], threads: int, log: Path) -> int:
    """Make a run, and pass on the request to stop; returns the exit code of its process."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    environment = environment_of("slurm", threads, shared=True)
    children = Children(environment, warm=False)
    children.start(cell.key, command, environment, log)
    told = False
    while children.running:
        if ended := wait_for([children], BEAT):
            children.hang_up()
            return ended[0][1]
        if asked and not told:
            children.signal(signal.SIGTERM)
            told = True
    return LOST


if __name__ == "__main__":
    main()
