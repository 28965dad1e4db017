"""Results collected into a folder, and taken over where they would be the same today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.rundir.directory import run_path
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.resuming import require_same_source
from clbench.inputs import require_inputs, unmeasured
from clbench.launch.cells import Outcome
from clbench.report.run_files import collect_run, collected_name

if TYPE_CHECKING:
    from clbench.launch.plan import Planned


class Kept:
    """Results in a folder, as `clbench.report.run_files.collect` writes them.

    Args:
        folder: where they lie; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inputs: dict[str, Inputs] = {}

    def file(self, settings: RunSettings) -> Path:
        """Where the result of a run with these settings is kept."""
        name = collected_name(settings.method.name, settings.seed, settings.fingerprint())
        return self.folder / name

    def result(self, planned: Planned) -> RunResult | None:
        """The result that was kept of a run; None if there is none that would be the same today.

        The method's source, weights, images, prompts and reference data must be what they were, and
        all probes that are asked for must have been measured.
        """
        settings, cls = planned
        file = self.file(settings)
        try:
            result = RunResult.load(file)
            require_same_source(result, cls, file)
            require_inputs(settings, result, file, known=self._inputs)
        except ClbenchError:
            return None
        return result if unmeasured(settings, result) is None else None

    def keep(self, runs_dir: Path, settings: RunSettings, outcome: Outcome) -> None:
        """Copy the result of a run if it is complete.

        Args:
            runs_dir: folder of all runs.
            settings: of the run.
            outcome: how it ended.

        Raises:
            ClbenchError: a file cannot be read or written.
        """
        if outcome is Outcome.DONE:
            collect_run(run_path(runs_dir, settings), self.folder)
