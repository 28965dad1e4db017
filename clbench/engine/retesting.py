"""Testing the checkpoint of a finished run once more."""

from __future__ import annotations

from pathlib import Path

from clbench.clip.model import CLIP
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.process.progress import QuietReporter
from clbench.engine.process.randomness import exact_kernels, seed_everything
from clbench.engine.process.stopping import StopRequest
from clbench.engine.rundir import provenance
from clbench.engine.rundir.checkpoints import CheckpointStore, DamagedCheckpointError, Position
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.resuming import differences
from clbench.engine.testing import RowTester
from clbench.engine.training.trainers import choose_device, quiet_libraries


def retest(
    settings: RunSettings,
    sequence: SequenceData,
    model: CLIP,
    method: Method,
    folder: Path,
    result: RunResult,
) -> tuple[CorrectRow, list[str]]:
    """Measure the last row of a run again.

    Args:
        settings: those of the run.
        sequence: its images.
        model: its backbone, unchanged.
        method: its method, not yet prepared.
        folder: its directory; nothing is written there.
        result: what it found.

    Returns:
        Task name to which images are correct, and what of machine and software is not as it was.

    Raises:
        ClbenchError: weights, images or prompts are others, or the checkpoint is damaged.
    """
    device = choose_device(settings)
    if changed := Inputs.of(model, sequence).changes_since(result):
        raise ClbenchError(
            f"cannot test again, because this has changed since the run: {', '.join(changed)}"
        )
    learned = result.matrix.learned
    try:
        checkpoint = CheckpointStore(folder).load(Position(learned))
    except DamagedCheckpointError as error:
        raise ClbenchError(f"cannot test again: {error}") from error
    model.to(device)
    stop = StopRequest()
    with stop, quiet_libraries(), exact_kernels(settings.deterministic):
        seed_everything(settings.seed, 0)
        method.prepare(model)
        method.to(device)
        method.load_state_dict(dict(checkpoint.method))
        method.eval()
        tester = RowTester(settings, sequence, model, method, folder, lambda text: None)
        row = tester.learned(learned, QuietReporter(), stop)
    return row, differences(result, provenance.collect(device, type(method)))
