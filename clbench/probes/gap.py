"""The modality gap: how far image and text features lie apart, and how alike wrong pairs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.probe import Look, Probe


@final
class Gap(Probe):
    """Distance of the centroids of both modalities, and the mean logit of wrong pairs.

    Measured on the test images of every task and the features of its classes, then averaged over
    the tasks. MG-CLIP stops training when the logit of wrong pairs has moved by 10 %.

    Sources: Liang et al. 2022, https://arxiv.org/abs/2203.02053 (the gap); MG-CLIP,
    https://arxiv.org/abs/2507.09118 (the logit of wrong pairs).
    """

    name: ClassVar[str] = "gap"

    def __init__(self) -> None:
        self._negative: float | None = None

    def start(self, look: Look) -> None:
        """Keep the logit of wrong pairs before the run."""
        self._negative = self._measured(look)["negative_logit"]

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """``gap``, ``negative_logit`` and its relative drift, over all tasks and per task."""
        values: dict[str, float | None] = {**self._measured(look)}
        if self._negative:
            found = values["negative_logit"]
            assert found is not None
            values["negative_drift"] = found / self._negative - 1
        return values

    def _measured(self, look: Look) -> dict[str, float]:
        gaps, negatives = {}, {}
        scale = float(look.model.logit_scale.detach().exp())
        for task, images in zip(look.benchmark.tasks, look.test_sets, strict=True):
            features, labels = look.features(images)
            texts = look.class_features(task.classes)
            gaps[task.name] = modality_gap(features, texts)
            if len(texts) > 1:
                negatives[task.name] = negative_logit(scale * features @ texts.T, labels)
        return {
            "gap": _mean(gaps),
            **({"negative_logit": _mean(negatives)} if negatives else {}),
            **{f"gap/{name}": value for name, value in gaps.items()},
            **{f"negative_logit/{name}": value for name, value in negatives.items()},
        }


def modality_gap(images: Tensor, texts: Tensor) -> float:
    """``|| mean_i f(I_i) - mean_c g(T_c) ||`` of unit-length features.

    >>> import torch
    >>> modality_gap(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5, -0.5]]))
    1.0

    Args:
        images: ``(N, D)``.
        texts: ``(C, D)``.
    """
    return float((images.double().mean(0) - texts.double().mean(0)).norm())


def negative_logit(logits: Tensor, labels: Tensor) -> float:
    """Mean logit of all pairs of an image and a class that is not its own.

    >>> import torch
    >>> negative_logit(torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 6.0]]), torch.tensor([0, 1]))
    3.0

    Args:
        logits: ``(N, C)``, C at least 2.
        labels: ``(N,)``.
    """
    own = F.one_hot(labels, logits.shape[1]).bool()
    return float(logits.double()[~own].mean())


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
