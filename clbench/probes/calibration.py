"""Calibration: whether a probability says how often the answer is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torchmetrics.functional.classification import binary_calibration_error

from clbench.core.probe import Look, Probe
from clbench.core.task import ClassTexts, Setting

BINS: Final = 15


@dataclass(frozen=True)
class Answers:
    """What calibration needs to know of the answers to N images.

    Attributes:
        confidence: ``(N,)`` probability of the answer.
        correct: ``(N,)`` whether it is right.
        nll: ``(N,)`` negative log-probability of the right class.
        brier: ``(N,)`` squared distance of the probabilities to the right answer.
    """

    confidence: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Answers:
        """From logits ``(N, C)`` and labels ``(N,)``."""
        log_p = logits.double().log_softmax(dim=1)
        confidence, answers = log_p.exp().max(dim=1)
        nll = -log_p.gather(1, labels[:, None]).squeeze(1)
        brier = (log_p.exp() - F.one_hot(labels, logits.shape[1])).square().sum(1)
        return cls(confidence, answers == labels, nll, brier)

    @classmethod
    def joined(cls, parts: Iterable[Answers]) -> Answers:
        """Those of several batches or tasks."""
        columns = zip(*((p.confidence, p.correct, p.nll, p.brier) for p in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))

    def values(self) -> dict[str, float]:
        """``ece``, ``nll`` and ``brier``."""
        return {
            "ece": expected_calibration_error(self.confidence, self.correct),
            "nll": float(self.nll.mean()),
            "brier": float(self.brier.mean()),
        }


@final
class Calibration(Probe):
    """Expected calibration error, negative log-likelihood and Brier score over the test images.

    The probabilities are the softmax of the method's scores: among the candidates of the
    benchmark, pooled over the images of all tasks and per task, and (``union_``) among the
    classes of all tasks. Where scores are no logits (RAIL), that says little.

    Sources: Guo et al. 2017, https://arxiv.org/abs/1706.04599 (15 bins of equal width over the
    probability of the answer); Brier 1950 (sum over classes).
    """

    name: ClassVar[str] = "calibration"

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """The three numbers, their ``union_`` versions, and details per task."""
        benchmark = look.benchmark
        union = _union(look)
        own: dict[str, Answers] = {}
        among_all: list[Answers] = []
        for t, task in enumerate(benchmark.tasks):
            candidates = benchmark.candidates(look.learned, t)
            asked = [c for c in (candidates, union) if c is not None]
            if not asked:
                continue
            found: list[list[Answers]] = [[] for _ in asked]
            first = task.classes.ids[0]
            for scores, labels in look.logits(look.test_sets[t], asked):
                for parts, logits, among in zip(found, scores, asked, strict=True):
                    parts.append(Answers.of(logits, labels + among.ids.index(first)))
            joined = [*map(Answers.joined, found)]
            if candidates is not None:
                own[task.name] = joined[0]
            if union is not None:
                among_all.append(joined[-1])
        values: dict[str, float | None] = {}
        if own:
            values |= Answers.joined(own.values()).values()
        if among_all:
            pooled = Answers.joined(among_all).values()
            values |= {f"union_{key}": value for key, value in pooled.items()}
        for name, answers in own.items():
            values |= {f"{key}/{name}": value for key, value in answers.values().items()}
        return values


def expected_calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """``sum_b |B_b| / N |accuracy(B_b) - confidence(B_b)|`` over bins of equal width.

    >>> confidence = torch.tensor([0.9, 0.9, 0.6, 0.6])
    >>> round(expected_calibration_error(confidence, torch.tensor([1, 1, 1, 0]) > 0), 6)
    0.1

    Args:
        confidence: ``(N,)`` probability of the answer.
        correct: ``(N,)`` bool.
    """
    # Of two classes, "right" and "wrong": rounding must not lift a probability above 1, which
    # torchmetrics would take for a logit.
    error = binary_calibration_error(confidence.clamp(0, 1), correct.long(), BINS, norm="l1")
    return float(error)


def _union(look: Look) -> ClassTexts | None:
    """The classes of all tasks; None where images are scored among them anyway."""
    if look.benchmark.setting in (Setting.TASK_HIDDEN, Setting.DOMAIN_INCREMENTAL):
        return None
    merged = ClassTexts((), ())
    for task in look.benchmark.tasks:
        merged = merged + task.classes
    return merged
