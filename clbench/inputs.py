"""What a run reads before it starts: the backbone's weights and the benchmark's images."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench import registry
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.method import REFERENCE_SOURCES
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.probing import Probes
from clbench.engine.rundir.provenance import Inputs, hash_reference, reference_sources
from clbench.engine.rundir.resuming import require_same_inputs
from clbench.engine.training.trainers import choose_device

if TYPE_CHECKING:
    from clbench.core.method import Method
    from clbench.core.probe import Probe

MINI = "mini"
"""Architecture of the embedded CLIP, which knows nothing but what was rendered for it."""

NOT_LOOKED_AT = {
    "method", "train", "evaluation", "seed", "precision", "device", "workers", "compile",
    "checkpoint_every", "devices", "deterministic", "logger", "probes",
}  # fmt: skip
"""Settings that change neither weights nor images; reference data have a key of their own."""


def load_inputs(settings: RunSettings) -> tuple[CLIP, SequenceData]:
    """Load weights and data, or say about both at once what is missing."""
    problems: list[str] = []
    image_size = 224  # without weights; the data are only looked at, to complete the message
    try:
        model = load_clip(settings.backbone)
        image_size = model.image_size
    except ClbenchError as error:
        problems.append(str(error))
        if registry.benchmark(settings.benchmark.name).backbone:
            raise  # a benchmark that brings its own backbone brings its data, too
    try:
        sequence = build_sequence(settings, image_size)
    except ClbenchError as error:
        problems.append(str(error))
    if problems:
        raise ClbenchError("\n".join(problems))
    return model, sequence


def require_inputs(
    settings: RunSettings,
    result: RunResult,
    path: Path,
    *,
    known: dict[str, Inputs] | None = None,
    quiet: bool = True,
) -> None:
    """Refuse a complete result whose weights, images, prompts or reference data changed.

    Args:
        settings: those of the run.
        result: its result.
        path: its directory.
        known: inputs that were looked at a moment ago; those of this run are added.
        quiet: show no progress.

    Raises:
        ClbenchError: they changed, or cannot be looked at.
    """
    known = {} if known is None else known
    sources = None
    if result.data.reference_hashes:
        sources = reference_sources(result.method.needs, settings.method.params)
    key = f"{settings.model_dump_json(exclude=NOT_LOOKED_AT)} {sources}"
    if key not in known:
        try:
            model, sequence = load_inputs(settings)
            sequence.hash_images(quiet=quiet)
            hash_reference(sequence, sources or {}, quiet=quiet)
            known[key] = Inputs.of(model, sequence, sources)
        except ClbenchError as error:
            raise ClbenchError(
                f"{path} is complete, but whether weights and images are still those it was made "
                f"with cannot be told (`clbench show {path}` shows the result all the same): "
                f"{error}"
            ) from error
    require_same_inputs(result, known[key], path)


def require_reference(
    settings: RunSettings, cls: type[Method], sequence: SequenceData, *, quiet: bool = True
) -> None:
    """Look at a method's reference data now, not hours later when the first task begins.

    Args:
        settings: those of the run.
        cls: the method.
        sequence: what reads them.
        quiet: show no progress.

    Raises:
        ClbenchError: a source is missing or has nothing.
    """
    if sources := reference_sources(cls.needs, settings.method.params):
        images, texts = (sources.get(key, "task") for key in REFERENCE_SOURCES)
        sequence.reference_stream(0, images, texts, 0)
        hash_reference(sequence, sources, quiet=quiet)


def make_probes(settings: RunSettings, model: CLIP, *, quiet: bool = True) -> Probes:
    """The probes that the settings name, and what they look at.

    Args:
        settings: those of the run.
        model: its backbone.
        quiet: show no progress.

    Raises:
        ClbenchError: two have the same name, or data that one needs are missing.
    """
    chosen: dict[str, Probe] = {}
    for name in settings.probes:
        probe = registry.probe(name)()
        if probe.name in chosen:
            raise ClbenchError(f"two probes are called {probe.name!r}: name only one of them")
        chosen[probe.name] = probe
    needs = frozenset(kind for probe in chosen.values() for kind in probe.needs)
    wants = frozenset(kind for probe in chosen.values() for kind in probe.wants)
    if not needs | wants:
        return Probes(chosen)
    from clbench.datamodules.probing.load import probe_data

    data = probe_data(
        needs,
        wants,
        embedded=settings.backbone.model == MINI,
        image_size=model.image_size,
        data_root=settings.data_root,
        cache_root=settings.cache_root,
        quick=settings.quick,
        quiet=quiet,
    )
    return Probes(chosen, data)


def unmeasured(settings: RunSettings, result: RunResult) -> str | None:
    """What to say where a complete result lacks probes that are asked for; None if it does not."""
    names = [name for name in settings.probes if registry.probe(name).name not in result.probes]
    if not names:
        return None
    return (
        f"made without probe{'s' * (len(names) > 1)} {', '.join(names)}, which can only look while "
        "a run is made: add --fresh to make it anew (what is there is moved aside)"
    )


def workers(settings: RunSettings) -> int:
    """Data-loading processes: on the CPU none, because training keeps all cores busy."""
    if settings.workers is not None:
        return settings.workers
    return min(8, (os.cpu_count() or 1) - 1) if choose_device(settings).type == "cuda" else 0


def build_sequence(settings: RunSettings, image_size: int) -> SequenceData:
    """Build the task sequence of a benchmark.

    Raises:
        ClbenchError: its data are missing or damaged.
    """
    recipe = registry.benchmark(settings.benchmark.name)
    builder = recipe.load_builder()
    context: dict[str, Any] = {
        "image_size": image_size,
        "data_root": settings.data_root,
        "cache_root": settings.cache_root,
        "workers": workers(settings),
        "quick": settings.quick,
    }
    taken = inspect.signature(builder).parameters
    if "cache_root" not in taken:  # builders from elsewhere may keep nothing
        del context["cache_root"]
    sequence = builder(name=recipe.name, **context, **settings.benchmark.options)
    if settings.first_tasks is None and settings.tested_on == "test":
        return sequence
    if not isinstance(sequence, TaskSequence):
        raise ClbenchError(
            f"first_tasks and tested_on need a TaskSequence, and the builder of {recipe.name!r} "
            f"returns a {type(sequence).__name__}"
        )
    validation = settings.tested_on == "validation"
    return sequence.narrowed(settings.first_tasks, validation=validation)
