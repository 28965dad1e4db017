"""Results collected into a folder, and taken over where they would be the same today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.resuming import require_same_source
from clbench.inputs import require_inputs, unmeasured
from clbench.report.run_files import collected_name

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

    def holds(self, planned: Planned, file: Path | None = None) -> bool:
        """Whether a finished result was kept, and would be the same today.

        The method's source, weights, images, prompts and reference data must be what they were, and
        all probes that are asked for must have been measured.

        Args:
            planned: the run.
            file: where the result may lie; what `file` returns if None.
        """
        settings, cls = planned
        file = file or self.file(settings)
        try:
            result = RunResult.load(file)
            require_same_source(result, cls, file)
            require_inputs(settings, result, file, known=self._inputs)
        except ClbenchError:
            return False
        return unmeasured(settings, result) is None
