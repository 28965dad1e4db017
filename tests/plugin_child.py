"""Runs methods of an installed package: undisturbed, and cut off again and again.

``python -m tests.plugin_child BENCHMARK FOLDER METHOD...`` leaves the runs of a method in
``FOLDER/METHOD/whole`` and ``FOLDER/METHOD/cut``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from clbench import config
from clbench.api import run_resolved
from clbench.core.errors import Stopped
from clbench.engine.process.progress import QuietReporter
from tests.engine.rundir.test_resuming import Kill, Killed, Signal


def main(benchmark: str, folder: Path, methods: list[str]) -> None:
    """Run every method twice."""
    overrides = {
        **config.backbone_settings("mini"),
        "checkpoint_every.steps": 1,
        "data_root": str(folder),
        "device": "cpu",
    }
    for name in methods:
        settings, cls = config.resolve(name, benchmark, quick=True, overrides=overrides)
        run_resolved(settings, cls, folder / name / "whole", QuietReporter())
        trains = "trains-nothing" not in cls.traits
        cuts = [Kill(task=1, step=3), Signal(task=2, step=1)] if trains else [Signal(row=1)]
        for reporter in cuts:
            with suppress(Killed, Stopped):
                run_resolved(settings, cls, folder / name / "cut", reporter)
                raise AssertionError("the run was not cut off")
        result = run_resolved(settings, cls, folder / name / "cut", QuietReporter())
        assert len(result.provenance["resumed"]) == len(cuts)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
