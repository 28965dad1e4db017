"""The probes of a run: called at every row, timed, and kept from changing anything."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from clbench.clip.model import CLIP, REMEMBERED
from clbench.clip.shortcuts.constancy import Memo, bit_digests
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.probe import Look, Probe, ProbeData
from clbench.core.settings import RunSettings
from clbench.core.task import ClassTexts
from clbench.engine.process import randomness
from clbench.engine.process.progress import Reporter

Values = dict[str, float | None]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DIGITS = 6
"""Significant digits that are kept of a number."""


@dataclass(frozen=True)
class Measured:
    """What a probe found at one row.

    Attributes:
        values: name to number, None where it is not defined.
        seconds: since the row before, with what the probe did before the task.
        data: hashes of what it looked at besides the tasks' test images.
    """

    values: Values
    seconds: float
    data: dict[str, str]


@dataclass(frozen=True)
class Probes:
    """Instances of probes, by name, and what they look at besides the tasks' test images."""

    chosen: Mapping[str, Probe] = field(default_factory=dict)
    data: ProbeData = field(default_factory=ProbeData)


class Probing:
    """Calls the probes of a run. Without any, it does nothing.

    A probe that fails is left out from then on and the run continues, as accuracies do not depend
    on it; one that changes the model ends the run.

    Args:
        probes: the probes.
        settings: batch size and precision.
        sequence: the images.
        model: the CLIP that is looked at, on its device.
        reporter: shows what goes on.
        log: receives tracebacks.
        check: raises where the run is to stop.
        forgiving: whether a probe that fails is dropped; otherwise that is an error.
    """

    def __init__(
        self,
        probes: Probes,
        settings: RunSettings,
        sequence: SequenceData,
        model: CLIP,
        reporter: Reporter,
        log: Callable[[str], None],
        check: Callable[[], None],
        *,
        forgiving: bool = True,
    ) -> None:
        self._forgiving = forgiving
        self._active = dict(probes.chosen)
        self._data = probes.data
        self._settings = settings
        self._sequence = sequence
        self._model = model
        self._reporter = reporter
        self._log = log
        self._check = check
        self._memo = Memo(REMEMBERED)
        self._seconds = dict.fromkeys(self._active, 0.0)

    def __bool__(self) -> bool:
        return bool(self._active)

    def start(self) -> None:
        """Show the probes the model as it is before the run."""
        self._each(0, None, lambda probe, look: probe.start(look))

    def before_task(self, learned: int, method: Method) -> None:
        """Show them the model before a task."""
        self._each(learned, method, lambda probe, look: probe.before_task(look))

    def measure(self, learned: int, method: Method | None = None) -> dict[str, Measured]:
        """What each probe finds after so many tasks.

        Args:
            learned: number of tasks.
            method: whose answers are looked at; None for the model's own, before training.
        """
        found: dict[str, Values] = {}

        def measure(probe: Probe, look: Look) -> None:
            found[probe.name] = {k: rounded(v) for k, v in probe.measure(look).items()}

        self._each(learned, method, measure)
        measured = {
            name: Measured(
                found[name], self._seconds[name], self._data.digests_of(probe.needs | probe.wants)
            )
            for name, probe in self._active.items()
        }
        self._seconds = dict.fromkeys(self._active, 0.0)
        return measured

    def _each(
        self, learned: int, method: Method | None, call: Callable[[Probe, Look], None]
    ) -> None:
        """Call something with every probe, and drop those that fail."""
        if not self._active:
            return
        model = self._model if method is None else method.model
        look = self._look(learned, model, method)
        with undisturbed(model if method is None else method, model, self._memo):
            for name, probe in list(self._active.items()):
                self._reporter.probing(name)
                began = time.perf_counter()
                try:
                    with watched(name, model if method is None else method):
                        call(probe, look)
                    if model.device.type == "cuda":
                        torch.cuda.synchronize(model.device)
                except _ChangedError as error:
                    raise ClbenchError(str(error)) from error
                except Exception as error:
                    self._drop(name, error)
                self._seconds[name] += time.perf_counter() - began

    def _drop(self, name: str, error: Exception) -> None:
        del self._active[name]
        self._log("".join(traceback.format_exception(error)).rstrip())
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if not self._forgiving:
            raise ClbenchError(f"probe {name!r} failed: {reason}") from error
        self._reporter.note(
            f"probe {name!r} failed and was dropped; the run continues ({reason}; the traceback is "
            "in log.txt)"
        )

    def _look(self, learned: int, model: CLIP, method: Method | None) -> Look:
        def zero_shot(images: Tensor, candidates: ClassTexts) -> Tensor:
            return model.logits(images, model.class_features(candidates))

        sequence, dtype = self._sequence, AUTOCAST[self._settings.precision]
        kind = model.device.type
        return Look(
            model,
            sequence.benchmark,
            learned,
            test_sets=[sequence.test_set(t) for t in range(len(sequence.benchmark))],
            data=self._data,
            classify=zero_shot if method is None else method.classify,
            answers_with_model=method is None or method.answers_with_model,
            batch_size=self._settings.evaluation.batch_size,
            precision=partial(torch.autocast, kind, dtype=dtype, enabled=dtype is not None),
            check=self._check,
        )


class _ChangedError(Exception):
    """A probe changed the model."""


@contextmanager
def watched(name: str, module: nn.Module) -> Iterator[None]:
    """Refuse a probe that changes a weight or a buffer.

    Raises:
        _ChangedError: it did.
    """
    before = bit_digests(_tensors(module))
    yield
    if bit_digests(_tensors(module)) != before:
        raise _ChangedError(
            f"probe {name!r} changed the model, so that the accuracies to come would be others: "
            "let it work on a copy"
        )


@contextmanager
def undisturbed(module: nn.Module, model: CLIP, memo: Memo) -> Iterator[None]:
    """Put back what looking at a model could change: random generators, modes, memories.

    Args:
        module: all that is looked at, which holds the model.
        model: a CLIP. Its text features are remembered in `memo` meanwhile, and its blocks run
            uncompiled, since compiled ones do not see hooks.
        memo: the memory of the probes.
    """
    state = randomness.capture()
    modes = [(part, part.training) for part in module.modules()]
    blocks = [*model.blocks("vision"), *model.blocks("text")]
    calls = [block._compiled_call_impl for block in blocks]
    try:
        module.eval()
        for block in blocks:
            block._compiled_call_impl = None
        with torch.no_grad(), model.remembering_in(memo):
            yield
    finally:
        for part, training in modes:
            part.training = training
        for block, compiled in zip(blocks, calls, strict=True):
            block._compiled_call_impl = compiled
        randomness.restore(state)


def rounded(value: float | None) -> float | None:
    """A number as result files keep it; None for what is not finite.

    >>> rounded(0.123456789), rounded(float("nan"))
    (0.123457, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
