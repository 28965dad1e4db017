"""What a run reads before it starts: the backbone's weights and the benchmark's images."""

from __future__ import annotations

import os

from clbench import registry
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.engine.training.trainers import choose_device


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
    return recipe.load_builder()(
        name=recipe.name,
        image_size=image_size,
        data_root=settings.data_root,
        workers=workers(settings),
        quick=settings.quick,
        **settings.benchmark.options,
    )
