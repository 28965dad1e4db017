"""The embedded benchmark as a whole, and how close its parts come to what the machine allows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.machine import alternate, matrix_rate, operations
from benchmarks.steps import training_step
from clbench.api import build_sequence
from clbench.clip.loading import load_clip
from clbench.config import resolve
from clbench.core.data import Batch, SequenceData
from clbench.core.method import Method
from clbench.core.settings import RunSettings
from clbench.engine.allocator import freed_memory_kept

LOADING = "import clbench.startup as s\nwith s.loading():\n import clbench.api\ns.leave(0)"

WARM_UP = 5


def parts(calls: int, device: torch.device) -> list[dict[str, Any]]:
    """What a run of NuSA-CL consists of: how often, for how long, and two floors of each.

    Floors are the operations of matrix products at the rate of a large one, and the operators of
    PyTorch that the part comes down to, called again with the same arguments one after the other:
    no modules, no graph, no optimizer's bookkeeping.
    """
    settings, method_class = resolve("nusa", "mini")
    model = load_clip(settings.backbone).to(device)
    sequence = build_sequence(settings, model.image_size)
    method = method_class(**settings.method.params)
    method.prepare(model)
    method.to(device)
    rate = matrix_rate(device, torch.float32)
    count = len(sequence.benchmark)
    steps = sum(settings.train.steps_for(task.name) for task in sequence.benchmark.tasks)
    with freed_memory_kept(device):
        made = {
            f"step of {settings.train.batch_size} images": (
                steps,
                _training(method, settings, sequence),
            ),
            f"test of {len(sequence.test_set(0))} images": (
                count * (count + 1),
                _testing(method, settings, sequence),
            ),
        }
        rows = [
            {"part": name, "count": times, **_measure(call, calls, rate, device)}
            for name, (times, call) in made.items()
        ]
    (loading,) = alternate([_load_modules], 3, device)
    return [{"part": "loading modules", "count": 1, "seconds": loading}, *rows]


def _training(
    method: Method, settings: RunSettings, sequence: SequenceData
) -> Callable[[], object]:
    """A training step of the task in the middle."""
    index = len(sequence.benchmark) // 2
    task = sequence.benchmark.tasks[index]
    prompts = method.model.tokenize([texts[0] for texts in task.classes.prompts])
    batch_size = settings.train.batch_size
    loader = sequence.train_loader(index, batch_size=batch_size, steps=1, seed=0)
    images, labels = next(iter(loader))
    device = method.model.device
    batch = Batch(images.to(device), labels.to(device), prompts)
    method.train()
    method.begin_task(task, None)  # type: ignore[arg-type] # NuSA-CL looks at weights only
    return training_step(method, lambda: method.loss(batch), settings.train.lr)


def _testing(method: Method, settings: RunSettings, sequence: SequenceData) -> Callable[[], object]:
    """A test of one task."""
    loader = list(sequence.test_loader(0, batch_size=settings.evaluation.batch_size))
    classes = sequence.benchmark.candidates(0, 0)
    assert classes is not None

    @torch.inference_mode()
    def test() -> Sequence[torch.Tensor]:
        with method.model.frozen():
            return [method.classify(images, classes) for images, _ in loader]

    return test


def _measure(
    call: Callable[[], object], calls: int, rate: float, device: torch.device
) -> Mapping[str, Any]:
    for _ in range(WARM_UP):
        call()
    with _Recorder() as recorder:
        call()
    seconds, again = alternate([call, recorder.call_again], calls, device)
    count = operations(call)
    return {
        "seconds": seconds,
        "operators": len(recorder.calls),
        "operator_seconds": again,
        "operations": count,
        "floor_seconds": count / rate,
    }


def _load_modules() -> None:
    subprocess.run([sys.executable, "-c", LOADING], check=True, capture_output=True)


class _Recorder(TorchDispatchMode):
    """Remembers the operators that are called, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []
        self.inference = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.inference = torch.is_inference_mode_enabled()
        self.calls.append((function, args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    def call_again(self) -> None:
        """Call them with the same arguments, in the same order."""
        with torch.inference_mode(self.inference), torch.no_grad():
            for function, args, kwargs in self.calls:
                function(*args, **kwargs)
