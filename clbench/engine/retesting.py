"""The checkpoint of a run put back into its method, and tested once more."""

from __future__ import annotations

from pathlib import Path

from clbench.clip.model import CLIP
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.engine.probing import Measured, Probes, Probing
from clbench.engine.process.progress import QuietReporter, Reporter
from clbench.engine.process.randomness import exact_kernels, seed_everything
from clbench.engine.process.stopping import StopRequest
from clbench.engine.rundir import provenance
from clbench.engine.rundir.checkpoints import CheckpointStore, DamagedCheckpointError, Position
from clbench.engine.rundir.provenance import Inputs
from clbench.engine.rundir.resuming import differences
from clbench.engine.testing import RowTester
from clbench.engine.training.trainers import choose_device, quiet_libraries


def restore(method: Method, model: CLIP, folder: Path, learned: int, seed: int) -> None:
    """Put a method where a run was after so many tasks.

    Args:
        method: not yet prepared.
        model: the run's backbone, unchanged, on its device.
        folder: the run directory.
        learned: number of tasks.
        seed: of the run.

    Raises:
        ClbenchError: there is no such checkpoint, it is damaged, or it does not fit the method.
    """
    try:
        checkpoint = CheckpointStore(folder).load(Position(learned))
    except DamagedCheckpointError as error:
        raise ClbenchError(f"cannot go back to the state after task {learned}: {error}") from error
    seed_everything(seed, 0)
    method.prepare(model)
    method.to(model.device)
    try:
        method.load_state_dict(dict(checkpoint.method))
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ClbenchError(
            f"the checkpoint in {folder} does not fit method {method.name!r} as it is now: {reason}"
        ) from error
    method.eval()


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
    model.to(device)
    restore(method, model, folder, learned, settings.seed)
    row = measure_row(settings, sequence, model, method, folder, learned, QuietReporter())
    return row, differences(result, provenance.collect(device, type(method)))


def measure_row(
    settings: RunSettings,
    sequence: SequenceData,
    model: CLIP,
    method: Method,
    folder: Path,
    learned: int,
    reporter: Reporter,
) -> CorrectRow:
    """Test a method, as it is, on all tasks that are scored after so many have been learned.

    Args:
        settings: batch size, precision, kernels.
        sequence: the images.
        model: the method's CLIP, on its device.
        method: prepared.
        folder: where the trainer believes that it works; nothing is written there.
        learned: number of tasks.
        reporter: shows progress.

    Returns:
        Task name to which images are correct.
    """
    stop = StopRequest()
    with stop, quiet_libraries(), exact_kernels(settings.deterministic):
        tester = RowTester(settings, sequence, model, method, folder, lambda text: None)
        return tester.learned(learned, reporter, stop)


def measure_probes(
    settings: RunSettings,
    sequence: SequenceData,
    model: CLIP,
    method: Method,
    probes: Probes,
    learned: int,
    reporter: Reporter,
) -> dict[str, Measured]:
    """What probes find about a method as it is, without a run around it.

    They see no model from before, so what they measure against one is nothing.

    Args:
        settings: batch size, precision, kernels.
        sequence: the images.
        model: the method's CLIP, on its device.
        method: prepared.
        probes: the probes.
        learned: number of tasks.
        reporter: shows progress.

    Raises:
        ClbenchError: a probe fails.
    """
    stop = StopRequest()
    probing = Probing(
        probes,
        settings,
        sequence,
        model,
        reporter,
        lambda text: None,
        stop.check,
        forgiving=False,
    )
    with stop, quiet_libraries(), exact_kernels(settings.deterministic):
        return probing.measure(learned, method)
