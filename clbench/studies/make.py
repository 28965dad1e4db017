"""Makes the runs of a study that are missing, and reads all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.foreign.json_text import load_json
from clbench.core.results.result import RESULTS, RunResult
from clbench.launch.kept import Kept
from clbench.launch.make import Grid, Wanted
from clbench.launch.plan import Planned
from clbench.studies.runs import MEASURED, Run, Runs
from clbench.studies.study import Study


@dataclass(frozen=True)
class Made:
    """A study whose runs are there.

    Attributes:
        study: which.
        runs: all of them.
        quick: whether they are smoke runs.
    """

    study: Study
    runs: Runs
    quick: bool = False


@dataclass(frozen=True)
class Making:
    """How the runs of a study are made.

    Attributes:
        runs_dir: folder of all runs.
        out: folder of the study's results.
        wanted: who makes them.
        overrides: settings by dotted key, for every run.
        quick: smoke runs.
        fresh: make all runs and measurements anew.
    """

    runs_dir: Path
    out: Path
    wanted: Wanted = field(default_factory=Wanted)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    fresh: bool = False

    def planned(self, study: Study) -> list[Planned]:
        """The runs of a study."""
        return study.planned(self.overrides, quick=self.quick)

    def left(self, study: Study) -> list[Planned]:
        """The runs whose results are not in the folder, or would be others today."""
        return self._left(self.planned(study))

    def make(self, study: Study, console: Console, *, quiet: bool = False) -> Made:
        """Make what is missing, keep every result, and read all of them.

        Runs that are complete but lack a probe of the study are made anew.

        Args:
            study: which.
            console: where progress is shown.
            quiet: show no progress.

        Raises:
            ClbenchError: runs that could not be made; the others are kept.
        """
        planned = self.planned(study)
        left = self._left(planned)
        if left and hasattr(study.module, "prepare"):
            study.module.prepare()
            left = self._left(planned)
        if left:
            grid = Grid(left, self.runs_dir, self.wanted)
            keep = partial(Kept(self.out / RESULTS).keep, self.runs_dir)
            made = grid.make(console, fresh=self.fresh, probed=True, quiet=quiet, ended=keep)
            if made.problems:
                raise ClbenchError("\n".join(made.problems))
        measured = self._measure(study, console, quiet)
        return read_study(study, self.out, planned, measured, quick=self.quick)

    def _left(self, planned: list[Planned]) -> list[Planned]:
        kept = Kept(self.out / RESULTS)
        return planned if self.fresh else [one for one in planned if kept.result(one) is None]

    def _measure(self, study: Study, console: Console, quiet: bool) -> dict[str, Any]:
        """What the study measures besides runs."""
        if not hasattr(study.module, "measure"):
            return {}
        file = self.out / (f"quick-{MEASURED}" if self.quick else MEASURED)
        basis = study.module.basis(quick=self.quick)
        if self.fresh or not file.is_file() or _load_measured(file)["basis"] != basis:
            if not quiet:
                console.print("measuring what no run tells")
            found = study.module.measure(quick=self.quick)
            write_atomic(file, json.dumps({"basis": basis, "found": found}, indent=1) + "\n")
        return read_measured(file)


def read_study(
    study: Study,
    out: Path,
    planned: list[Planned] | None = None,
    measured: dict[str, Any] | None = None,
    *,
    quick: bool = False,
) -> Made:
    """Read the results of a study from its folder.

    Args:
        study: which.
        out: the folder.
        planned: its runs; those of its file if None.
        measured: what it measured besides; read from the folder if None.
        quick: whether they are smoke runs.

    Raises:
        ClbenchError: a result is missing, damaged, or lacks the record of its images.
    """
    kept = Kept(out / RESULTS)
    if measured is None:
        measured = read_measured(out / MEASURED) if hasattr(study.module, "measure") else {}
    files = [kept.file(settings) for settings, _ in planned or study.planned({})]
    if missing := [file for file in files if not file.is_file()]:
        raise ClbenchError(
            f"study {study.name}: {len(missing)} of {len(files)} results are missing in "
            f"{kept.folder}, first {missing[0].name}: `clbench study {study.name}` makes them"
        )
    runs = [Run(file, RunResult.load(file)) for file in dict.fromkeys(files)]
    return Made(study, Runs(runs, measured), quick)


def read_measured(file: Path) -> dict[str, Any]:
    """Numbers that a study measured besides runs.

    Raises:
        ClbenchError: they are missing or damaged.
    """
    found: dict[str, Any] = _load_measured(file)["found"]
    return found


def _load_measured(file: Path) -> dict[str, Any]:
    """What was measured, and what it depended on."""
    try:
        content = load_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClbenchError(
            f"{file} cannot be read ({error}): delete it, and measure again"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), dict) for key in ("basis", "found")
    ):
        raise ClbenchError(f"{file} holds no numbers by name: delete it, and measure again")
    return content
