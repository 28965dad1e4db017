"""What running several at a time gains: ``python -m tests.launch.throughput``.

The same comparison is made with one run at a time, which has all cores, and with as many as there
are cores, one core each. Results, wall times and the load of the machine before each are kept in
``reports/launch/throughput.json``; the paragraph in ``docs/scale.md`` is written from the file.
Without ``--methods``, only the paragraph is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.launch.overhead import ROOT, show

FILE = ROOT / "reports" / "launch" / "throughput.json"


def measure(methods: str, seeds: str, jobs: int, folder: Path) -> dict[str, Any]:
    """Make a comparison on `mini` into an empty folder.

    Args:
        methods: as ``--methods``.
        seeds: as ``--seeds``.
        jobs: how many runs at a time.
        folder: where the runs go.
    """
    command = [sys.executable, "-m", "clbench", "compare", "--benchmark", "mini", "-q"]
    command += ["--methods", methods, "--seeds", seeds, "--jobs", str(jobs)]
    load = [round(load, 1) for load in os.getloadavg()]
    start = time.perf_counter()
    subprocess.run([*command, "--runs-dir", str(folder)], check=True)
    wall = time.perf_counter() - start
    accuracies = {
        f"{result['method']}/seed{result['seed']}": result["accuracy"]
        for result in (json.loads(path.read_text("utf-8")) for path in folder.rglob("result.json"))
    }
    return {"jobs": jobs, "wall_seconds": wall, "load_before": load, "accuracies": accuracies}


def paragraph(measured: Mapping[str, Any]) -> str:
    """The measurement in words."""
    one, several = measured["measured"]
    ratio = one["wall_seconds"] / several["wall_seconds"]
    minutes = [f"{side['wall_seconds'] / 60:.1f}" for side in (one, several)]
    same = sum(several["accuracies"][key] == one["accuracies"][key] for key in one["accuracies"])
    methods, seeds = measured["methods"].replace(",", ", "), measured["seeds"]
    return (
        f"{len(one['accuracies'])} runs of `mini` ({methods}; seeds {seeds}) on "
        f"{measured['cores']} cores took {minutes[0]} minutes with `--jobs 1` and {minutes[1]} "
        f"with `--jobs {several['jobs']}`: {ratio:.2f} times the throughput. "
        f"The accuracies of {same} of them are equal to the last bit.\n"
    )


def main() -> None:
    """Measure, and write the file and the paragraph."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument(
        "--runs", type=Path, default=Path("build/throughput"), help="an empty folder"
    )
    asked = parser.parse_args()
    if asked.methods is not None:
        cores = os.cpu_count() or 1
        sides = [
            measure(asked.methods, asked.seeds, jobs, asked.runs / f"jobs{jobs}")
            for jobs in (cores, 1)
        ]
        head = {"methods": asked.methods, "seeds": asked.seeds, "cores": cores}
        FILE.write_text(json.dumps({**head, "measured": sides[::-1]}, indent=1) + "\n", "utf-8")
    words = paragraph(json.loads(FILE.read_text("utf-8")))
    sys.stdout.write(words)
    show("throughput", words)


if __name__ == "__main__":
    main()
