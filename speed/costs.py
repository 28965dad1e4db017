"""What every method costs at full size: time and memory, what it trains, what it keeps.

All is a thirty-second of MTIL, where a task has 109 classes on average and a batch 64 images, so
that prompts, images and reference images keep their proportions.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from clbench import config, registry
from clbench.clip.model import CLIP
from clbench.core.data import Batch
from clbench.core.files import write_atomic
from clbench.core.method import Method
from clbench.core.settings import RunSettings
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.engine.rundir.sources import source_hash
from clbench.engine.training.allocator import freed_memory_kept
from clbench.engine.training.footprints import measured, state_bytes
from clbench.methods import moe_adapters
from clbench.testing.driving import Optimization, begin, end, run_steps
from clbench.testing.toys import ToyData, ToyStream
from speed.machine import identify, peak, release, seconds
from speed.published import PUBLISHED
from speed.setting import TINY, Size, build_model, class_texts, random_images

BENCHMARK = "mtil"
"""Whose recipes count."""
TASKS = 2
"""The second is measured: it has something to protect, and tells what every further task adds."""
PER_STEP = ("reference_batch", "replayed")
"""Hyper-parameters that count images of a step, to be as much smaller as the batch."""
REFERENCE_IMAGES = 64
"""Images that MoE-Adapters looks at once before its first task, in the place of 2000."""
CALLS_ON_GPU = 10
"""Steps are short there: as many times more of them are timed, and as many warm up."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        size: the model, and the images of a step.
        classes: of a task, which has two batches of images.
        repeats: steps of fine-tuning that are timed, each between two of the method.
    """

    size: Size = field(default_factory=lambda: Size(batch=2))
    classes: int = 3
    repeats: int = 1


QUICK = Scale(Size(TINY, batch=2), classes=3, repeats=2)
"""A test in moments, whose numbers mean nothing."""


def measure(
    names: Iterable[str],
    scale: Scale,
    folder: Path,
    device: torch.device,
    *,
    stamp: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    """Measure methods one by one, each into a file of its own.

    One that was measured with the same source, settings and scale before is left as it is, so that
    an interrupted call goes on where it was.

    Args:
        names: of the methods.
        scale: how much is measured.
        folder: where ``METHOD.json`` is written.
        device: where.
        stamp: when something was measured.
        say: is told what happens.
    """
    chosen = [*names]
    folder.mkdir(parents=True, exist_ok=True)
    blank: CLIP | None = None
    fine_tuning: Learner | None = None
    for number, name in enumerate(chosen, 1):
        settings, cls = config.resolve(name, BENCHMARK)
        path = folder / f"{name}.json"
        key = _key(settings, cls, scale)
        where = f"{number}/{len(chosen)} {name}"
        if path.is_file() and json.loads(path.read_text("utf-8"))["key"] == key:
            say(f"{where}: measured before")
            continue
        say(f"{where} ...")
        blank = blank or build_model(scale.size, device)
        fine_tuning = fine_tuning or _fine_tuning(scale, blank)
        row = {"method": name, "measured": stamp(), "machine": identify(device), "key": key}
        row |= _of_method(cls, settings, scale, blank, fine_tuning)
        write_atomic(path, json.dumps(row, indent=1) + "\n")


def _key(settings: RunSettings, cls: type[Method], scale: Scale) -> dict[str, Any]:
    """What a measurement depends on besides the shared code."""
    return {
        "source": source_hash(cls),
        "model": scale.size.model,
        "batch": scale.size.batch,
        "classes": scale.classes,
        "repeats": scale.repeats,
        "params": _scaled(settings, scale.size.batch),
        "published_params": _published_params(cls),
    }


def _published_params(cls: type[Method]) -> dict[str, Any]:
    """Hyper-parameters of a published number of parameters that the recipe does not have."""
    published = PUBLISHED.get(registry.key_of(cls))
    return dict(published.params) if published else {}


def _scaled(settings: RunSettings, batch: int) -> dict[str, Any]:
    """Hyper-parameters of a recipe, for a smaller batch."""
    params = dict(settings.method.params)
    for name in PER_STEP:
        if name in params:
            params[name] = max(1, params[name] * batch // settings.train.batch_size)
    return params


class Learner:
    """A method on a copy of a model, with two tasks.

    Attributes:
        steps: how many steps of a task are planned.
        driven: optimizer and schedule of the task that goes on; None if nothing trains.
    """

    def __init__(
        self, cls: type[Method], params: Mapping[str, Any], scale: Scale, blank: CLIP
    ) -> None:
        model, device = copy.deepcopy(blank), blank.device
        self.backbone = state_bytes(model)
        self.method = cls(**params)
        self.method.prepare(model)
        self.method.to(device)
        self.tasks = _tasks(model, scale)
        self.batch = scale.size.batch
        self.steps = _warmup(device) + 1 + _timed(scale, device)
        self.sizes: list[dict[str, int]] = []
        self.data: CountedData
        self.driven: Optimization | None

    def begin(self, index: int) -> None:
        """Start a task."""
        task, self.data = self.tasks[index]
        self.data.handed = self.taken = 0
        self.driven = begin(self.method, task, self.data, self.steps)
        self.trained = self.method.trainable_parameters()

    def step(self, batch: int | None = None) -> None:
        """Take the next step, if need be with fewer images than usual."""
        number, size = range(self.taken, self.taken + 1), batch or self.batch
        run_steps(self.method, self.data, self.driven, number, batch_size=size)
        self.taken += 1

    def end(self, index: int) -> None:
        """Finish the task."""
        self.data.handed = 0
        end(self.method, *self.tasks[index])
        footprint = measured(self.method, self.backbone)
        sizes = {"trained": self.trained, "added": footprint.added}
        self.sizes.append({**sizes, "stored_bytes": footprint.stored})

    @property
    def passes(self) -> float:
        """How often all images were looked at since the task or its end began."""
        return self.data.handed / len(self.data)


def _fine_tuning(scale: Scale, blank: CLIP) -> Learner:
    """Fine-tuning in the middle of a task, beside whose steps those of all methods are timed."""
    settings, cls = config.resolve("finetune", BENCHMARK)
    learner = Learner(cls, settings.method.params, scale, blank)
    learner.begin(0)
    for _ in range(_warmup(blank.device)):
        learner.step()
    return learner


def _of_method(
    cls: type[Method],
    settings: RunSettings,
    scale: Scale,
    blank: CLIP,
    fine_tuning: Learner,
) -> dict[str, Any]:
    """All numbers of a method."""
    row = _of_two_tasks(cls, settings, scale, blank, fine_tuning)
    release()
    if params := _published_params(cls):
        other = Learner(cls, {**settings.method.params, **params}, scale, blank)
        other.begin(0)
        row["trained_as_published"] = other.trained
    return row


def _of_two_tasks(
    cls: type[Method],
    settings: RunSettings,
    scale: Scale,
    blank: CLIP,
    fine_tuning: Learner,
) -> dict[str, Any]:
    """All numbers of a method with the settings of its recipe."""
    device = blank.device
    held = peak(lambda: None, device)
    learner = Learner(cls, _scaled(settings, scale.size.batch), scale, blank)
    row: dict[str, Any] = {}

    def until_the_second_task() -> None:
        learner.begin(0)
        learner.step(1)
        learner.end(0)
        row["begin_seconds"] = _cost(lambda: learner.begin(1), device)
        row["begin_passes"] = learner.passes

    own: list[float] = []

    def first_steps() -> None:
        for _ in range(_warmup(device)):
            learner.step()
        own.append(_cost(learner.step, device))  # the optimizer has its state by now

    with _fewer_reference_images(), freed_memory_kept(device):
        row["between_peak_bytes"] = peak(until_the_second_task, device) - held
        if trains := learner.driven is not None:
            row["step_peak_bytes"] = peak(first_steps, device) - held
        reference = []
        for _ in range(_timed(scale, device)):
            reference.append(_cost(fine_tuning.step, device))
            if trains:
                own.append(_cost(learner.step, device))
        row["end_seconds"] = _cost(lambda: learner.end(1), device)
        row["end_passes"] = learner.passes
    if trains:
        row["seconds"] = own
    row |= {"reference_seconds": reference, "tasks": learner.sizes, "recipe": _recipe(settings)}
    row |= {"backbone_bytes": learner.backbone, "images": len(learner.data)}
    row["image_bytes"] = learner.data.images[0].nbytes
    return row


def _cost(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: on a CPU those that its processors worked, whatever else they did."""
    if device.type == "cuda":
        return seconds(function, device)
    started = time.process_time()
    function()
    return time.process_time() - started


def _warmup(device: torch.device) -> int:
    return CALLS_ON_GPU if device.type == "cuda" else 1


def _timed(scale: Scale, device: torch.device) -> int:
    return scale.repeats * (CALLS_ON_GPU if device.type == "cuda" else 1)


def _recipe(settings: RunSettings) -> dict[str, Any]:
    """How much a task trains; what most tasks have."""
    train = settings.train
    epochs = train.epochs["default"] if isinstance(train.epochs, dict) else train.epochs
    steps = train.steps["default"] if isinstance(train.steps, dict) else train.steps
    recipe = {"batch_size": train.batch_size, "steps": None if epochs else steps, "epochs": epochs}
    return recipe | {"capacity": settings.method.params.get("capacity")}


@contextmanager
def _fewer_reference_images() -> Iterator[None]:
    with mock.patch.object(moe_adapters, "REFERENCE_IMAGES", REFERENCE_IMAGES):
        yield


@dataclass
class CountedData(ToyData):
    """A training set that counts the images it hands out, with reference images without end.

    Attributes:
        handed: images handed out so far.
    """

    handed: int = 0

    def batches(
        self, batch_size: int, *, seed: int | None = None, augmented: bool = False
    ) -> Iterator[Batch]:
        """See `LabelledImages.batches`."""
        for batch in super().batches(batch_size, seed=seed, augmented=augmented):
            self.handed += len(batch.labels)
            yield batch

    def reference_stream(self, images: str, texts: str, seed: int) -> EndlessStream:
        """See `TaskData.reference_stream`."""
        return EndlessStream(self.images, self.captions, seed, images)


class EndlessStream(ToyStream):
    """Images that were not seen before: a teacher has to look at those of every step."""

    def images(self, step: int, count: int) -> Tensor:
        """The images of a step, shifted by as much as none before."""
        numbers = range(step * count, (step + 1) * count)
        return torch.stack([self.pool[i % len(self.pool)].roll(1 + i, dims=-1) for i in numbers])


def _tasks(model: CLIP, scale: Scale) -> list[tuple[Task, CountedData]]:
    """Tasks with classes of their own, numbered as a benchmark numbers them."""
    classes, images = scale.classes, 2 * scale.size.batch
    texts = class_texts(TASKS * classes)
    specs = tuple(
        Task(f"random{t}", ClassTexts(texts.names[own], texts.prompts[own]))
        for t in range(TASKS)
        for own in [slice(t * classes, (t + 1) * classes)]
    )
    tasks = Benchmark("random", 1, Setting.TASK_GIVEN, "random", specs).tasks
    sets = [
        CountedData(
            random_images(model, images, task.index),
            torch.arange(images) % classes,
            model.tokenize(task.classes.training_prompts).to(model.device),
            task.classes.training_prompts,
        )
        for task in tasks
    ]
    for data in sets:
        data.others = [*sets]
    return list(zip(tasks, sets, strict=True))
