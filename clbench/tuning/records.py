"""What a search leaves behind: the results of all trials, and one file that says which they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from clbench.core.files import write_atomic
from clbench.core.results.result import FILE_NAME, RunResult
from clbench.launch.cells import Outcome
from clbench.report.run_files import collect_run
from clbench.report.search.read import FILE, FORMAT

DIVERGED: Final = "diverged"


def diverged_file(file: Path) -> Path:
    """Where what was measured of a trial is kept if its training diverged."""
    return file.parent.with_name(DIVERGED) / file.name


def keep(run: Path, file: Path, outcome: Outcome) -> None:
    """Keep the result of a trial.

    Args:
        run: its run directory.
        file: where the result is kept.
        outcome: how it ended; nothing is kept of one that failed otherwise.

    Raises:
        ClbenchError: a file cannot be read or written.
    """
    source = run / FILE_NAME
    if outcome is Outcome.DIVERGED and source.exists():
        RunResult.load(source).save(diverged_file(file))
        file.unlink(missing_ok=True)
    elif outcome is Outcome.DONE:
        collect_run(run, file.parent)
        diverged_file(file).unlink(missing_ok=True)


def write_trials(out: Path, content: Mapping[str, Any]) -> None:
    """Write what is known so far.

    Raises:
        ClbenchError: the file cannot be written.
    """
    write_atomic(out / FILE, json.dumps({"format": FORMAT, **content}, indent=1) + "\n")
