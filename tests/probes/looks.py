"""A look at a toy model, as the engine gives it to probes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import ImageSet
from clbench.core.method import Method
from clbench.core.probe import Look, ProbeData
from clbench.core.task import Benchmark, ClassTexts, Setting
from clbench.datamodules.pixels.images import ImageTensors
from clbench.testing.toys import make_task


def toy_benchmark(
    tasks: int = 3, setting: Setting = Setting.TASK_GIVEN
) -> tuple[Benchmark, list[ImageTensors]]:
    """Tasks of separable images, and the images."""
    built = [make_task(index) for index in range(tasks)]
    sets = [ImageTensors(data.images, data.labels) for _, data in built]
    return Benchmark("toy", 1, setting, "given", tuple(task for task, _ in built)), sets


def make_look(
    model: CLIP,
    learned: int = 0,
    *,
    benchmark: Benchmark | None = None,
    test_sets: Sequence[ImageSet] | None = None,
    data: ProbeData | None = None,
    method: Method | None = None,
    batch_size: int = 7,
) -> Look:
    """A look at a model, or at what a method answers."""
    if benchmark is None or test_sets is None:
        benchmark, test_sets = toy_benchmark()

    def zero_shot(images: Tensor, candidates: ClassTexts) -> Tensor:
        return model.logits(images, model.class_features(candidates))

    return Look(
        model,
        benchmark,
        learned,
        test_sets=test_sets,
        data=data or ProbeData(),
        classify=zero_shot if method is None else method.classify,
        answers_with_model=method is None or method.answers_with_model,
        batch_size=batch_size,
        precision=nullcontext,
        check=lambda: None,
    )
