"""Whether a run is what it claims to be: its files agree, and its checkpoint gives its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.core.foreign.yaml_text import load_yaml
from clbench.core.method import Method
from clbench.core.results.correctness import CorrectRow
from clbench.core.results.losses import check_losses
from clbench.core.results.manifest import check_manifest
from clbench.core.results.result import FILE_NAME, RunResult
from clbench.core.results.signature import check_signature
from clbench.core.results.soundness import Finding, check_bits, counted_rows
from clbench.core.results.tracker import LOSS_FILE
from clbench.core.settings import RunSettings
from clbench.report.tables.matrix_csv import read_matrix_csv
from clbench.trackers.csv_file import losses_csv, probes_csv

CSV_TOLERANCE = 1e-9
"""The matrix file keeps ten significant digits."""
OTHER_MACHINE = 0.005
"""Share of test images that may be answered differently on other hardware or software."""


def verify(
    path: Path, *, evaluate: bool = False, trust_code: bool = False, key: Path | None = None
) -> list[Finding]:
    """Check a run directory or a collected result file.

    Args:
        path: run directory or result file.
        evaluate: also test the final checkpoint anew.
        trust_code: import a method that the result names as ``module:Class`` or ``file.py:Class``.
        key: SSH public key that the run must be signed with.

    Raises:
        ClbenchError: there is no result, or `evaluate` lacks a checkpoint, weights or data.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.exists():
        raise ClbenchError(f"there is no result file {file}")
    findings: list[Finding] = []
    try:
        result = RunResult.load(file)
    except ClbenchError as error:
        return [Finding("result", str(error), False)]
    sealed = "sealed by its hash" if result.schema_version > 1 else "older: has no hash"
    tasks = f"{result.matrix.learned} of {len(result.matrix.tasks)} tasks"
    findings.append(Finding("result", f"{result.status}, {tasks}, summary recomputed, {sealed}"))
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: check_bits(file, result),
        lambda: _configured(result),
    ]
    if file.name == FILE_NAME:
        folder = file.parent
        checks += [
            lambda: _matrix_file(folder, result),
            lambda: _directory(folder, result),
            lambda: _losses(folder, result),
            lambda: _probes(folder, result),
            lambda: _checkpoint(folder, result),
            lambda: check_manifest(folder, result),
        ]
        if evaluate:
            checks.append(lambda: _evaluate(folder, result, trust_code))
    if key is not None:
        checks.append(partial(_signature, file, key))
    for check in checks:
        try:
            findings.extend(check())
        except ClbenchError as error:
            findings.append(Finding("file", str(error), False))
    return findings


def _matrix_file(folder: Path, result: RunResult) -> Iterator[Finding]:
    path = folder / "matrix.csv"
    if not path.exists():
        yield Finding("matrix.csv", "missing", False)
        return
    matrix = read_matrix_csv(path, result.matrix.setting)
    same = matrix.tasks == result.matrix.tasks and np.allclose(
        matrix.values, result.matrix.values, rtol=0, atol=CSV_TOLERANCE, equal_nan=True
    )
    yield Finding("matrix.csv", "agrees" if same else "differs from the result", same)


def _configured(result: RunResult) -> Iterator[Finding]:
    """Whether the result is that of its configuration, and the configuration that of its hash."""
    settings = _configuration(result)
    same = settings.fingerprint() == result.config_hash
    text = f"hash {result.config_hash}" if same else "its hash is not that of the result"
    yield Finding("configuration", text, same)
    stated = {
        "seed": (result.seed, settings.seed),
        "method.name": (result.method.name, settings.method.name),
        "method.params": (result.method.params, settings.method.params),
        "backbone.weights": (result.backbone.weights, settings.backbone.weights),
        "quick": (result.status == "quick", settings.quick and result.matrix.complete),
    }
    for what, (in_result, in_settings) in stated.items():
        if in_result != in_settings:
            text = f"{what} is {in_result} in the result, {in_settings} in its configuration"
            yield Finding("configuration", text, False)


def _directory(folder: Path, result: RunResult) -> Iterator[Finding]:
    named = folder.name == f"seed{result.seed}-{result.config_hash}"
    yield Finding("directory", folder.name if named else f"{folder.name} is another's name", named)
    path = folder / "config.yaml"
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
        same = RunSettings.model_validate(content).fingerprint() == result.config_hash
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        same = False
    yield Finding("config.yaml", "agrees" if same else "missing or differs from the result", same)


def _configuration(result: RunResult) -> RunSettings:
    """The settings in a result.

    Raises:
        ClbenchError: this version does not know them.
    """
    try:
        return RunSettings.model_validate(result.config)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ClbenchError(
            f"this version of clbench does not know the configuration ({place}): use the one that "
            "made the run"
        ) from error


def _losses(folder: Path, result: RunResult) -> Iterator[Finding]:
    train = _configuration(result).train
    name = result.method.name
    known = registry.method(name) if name in registry.method_names() else None
    yield from check_losses(
        folder,
        result,
        train,
        recipe_schedule=known is not None and known.optimizer is Method.optimizer,
        at_once=known is not None and "trains-at-once" in known.traits,
    )
    path = folder / "metrics.csv"
    if path.exists():
        try:
            same = path.read_text(encoding="utf-8") == losses_csv(result, folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            same = False
        text = f"agrees with {LOSS_FILE}" if same else f"differs from {LOSS_FILE}"
        yield Finding(path.name, text, same)


def _probes(folder: Path, result: RunResult) -> Iterator[Finding]:
    path = folder / "probes.csv"
    if path.exists():
        same = path.read_text(encoding="utf-8", errors="replace") == probes_csv(result)
        text = "agrees with the result" if same else "differs from the result"
        yield Finding(path.name, text, same)


def _signature(file: Path, key: Path) -> Iterator[Finding]:
    if file.name != FILE_NAME:
        yield Finding("signature", "none: only run directories have one", False)
        return
    yield check_signature(file.parent, key)


def _checkpoint(folder: Path, result: RunResult) -> Iterator[Finding]:
    from clbench.engine.rundir.checkpoints import CheckpointStore, DamagedCheckpointError, Position

    store, position = CheckpointStore(folder), Position(result.matrix.learned)
    if position not in store.positions():
        finished = result.status != "partial"
        yield Finding("checkpoint", f"none after task {position.learned}", not finished)
        return
    try:
        store.load(position)
    except DamagedCheckpointError as error:
        yield Finding("checkpoint", str(error), False)
    else:
        yield Finding("checkpoint", f"both hashes agree, after task {position.learned}")


def evaluate_again(
    folder: Path, result: RunResult, *, trust_code: bool = False
) -> tuple[CorrectRow, list[str]]:
    """Test the last checkpoint of a run anew.

    Returns:
        Which images are correct, and what of machine and software is other than in the run.

    Raises:
        ClbenchError: weights, data or checkpoint are missing or not those of the run, or its method
            is code that is not trusted.
    """
    from clbench import config
    from clbench.engine.process.randomness import same_threads
    from clbench.engine.retesting import retest
    from clbench.inputs import load_inputs

    resolved, cls = config.revive(result.config, trust_code=trust_code)
    model, sequence = load_inputs(resolved)
    method = cls(**resolved.method.params)
    with same_threads(result):
        return retest(resolved, sequence, model, method, folder, result)


def _evaluate(folder: Path, result: RunResult, trust_code: bool) -> Iterator[Finding]:
    """Test the checkpoint of the last row anew and compare image by image."""
    before = counted_rows(folder / FILE_NAME, result).get(result.matrix.learned, {})
    again, changed = evaluate_again(folder, result, trust_code=trust_code)
    if not before:
        cells = dict(
            zip(result.matrix.tasks, result.matrix.values[result.matrix.learned], strict=True)
        )
        wrong = [name for name, bits in again.items() if bits.mean() != cells[name]]
        text = f"other accuracy on {wrong[0]}" if wrong else "the same accuracies"
        yield Finding("evaluation", text, not wrong)
        return
    total = sum(map(len, again.values()))
    other = sum(int(np.sum(bits != before[name])) for name, bits in again.items())
    allowed = OTHER_MACHINE * total if changed else 0
    where = f" (other {', '.join(changed)} than in the run)" if changed else ""
    yield Finding(
        "evaluation", f"{other} of {total} answers of the last row differ{where}", other <= allowed
    )
