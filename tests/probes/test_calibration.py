"""Calibration against torchmetrics and against bins written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torchmetrics.functional.classification import multiclass_calibration_error

from clbench.clip.model import CLIP
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Setting
from clbench.probes.calibration import Answers, Calibration, expected_calibration_error
from tests.probes.looks import make_look, toy_benchmark


def made_up(count: int = 400, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = 2 * torch.randn(count, classes, generator=generator) + 2 * F.one_hot(labels, classes)
    return logits, labels


def test_the_error_is_that_of_bins_written_out() -> None:
    logits, labels = made_up()
    answers = Answers.of(logits, labels)
    pairs = list(zip(answers.confidence.tolist(), answers.correct.tolist(), strict=True))
    expected = 0.0
    for b in range(15):
        inside = [(p, right) for p, right in pairs if b / 15 <= p < (b + 1) / 15]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(accuracy - confidence)
    found = expected_calibration_error(answers.confidence, answers.correct)
    assert found == pytest.approx(expected, abs=1e-6)


def test_all_three_are_those_of_torchmetrics_and_torch() -> None:
    logits, labels = made_up()
    values = Answers.of(logits, labels).values()
    p = logits.softmax(1)
    expected = multiclass_calibration_error(p, labels, num_classes=5, n_bins=15, norm="l1")
    assert values["ece"] == pytest.approx(float(expected), abs=1e-5)
    assert values["nll"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    brier = sum(
        (float(p[i, c]) - (c == int(labels[i]))) ** 2 for i in range(len(p)) for c in range(5)
    ) / len(p)
    assert values["brier"] == pytest.approx(brier, rel=1e-5)


def test_certain_answers_are_calibrated_if_they_are_right() -> None:
    sure = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    right = Answers.of(sure, torch.tensor([0, 1])).values()
    assert right == pytest.approx({"ece": 0, "nll": 0, "brier": 0})
    wrong = Answers.of(sure, torch.tensor([1, 0])).values()
    assert wrong == pytest.approx({"ece": 1, "nll": 100, "brier": 2})


@pytest.mark.parametrize("learned", [0, 2])
def test_pooled_numbers_are_those_of_all_images(tiny_clip: CLIP, learned: int) -> None:
    benchmark, sets = toy_benchmark()
    union = ClassTexts((), ())
    for task in benchmark.tasks:
        union = union + task.classes
    own, among_all, first = [], [], 0
    with torch.no_grad():
        for task, images in zip(benchmark.tasks, sets, strict=True):
            features = tiny_clip.encode_image(images.images)
            scale = tiny_clip.logit_scale.exp()
            logits = scale * features @ tiny_clip.class_features(task.classes).T
            own.append(F.cross_entropy(logits, images.labels, reduction="none"))
            logits = scale * features @ tiny_clip.class_features(union).T
            among_all.append(F.cross_entropy(logits, images.labels + first, reduction="none"))
            first += len(task.classes)
        look = make_look(tiny_clip, learned, benchmark=benchmark, test_sets=sets)
        found = Calibration().measure(look)
    assert found["nll"] == pytest.approx(float(torch.cat(own).mean()), rel=1e-5)
    assert found["union_nll"] == pytest.approx(float(torch.cat(among_all).mean()), rel=1e-5)
    assert found["nll/task1"] == pytest.approx(float(own[1].mean()), rel=1e-5)


def test_a_method_with_answers_of_its_own_is_asked(tiny_clip: CLIP) -> None:
    class Sure(Method):
        name, paper = "sure", ""

        def loss(self, batch):
            return {}

        def classify(self, images, candidates):
            logits = torch.zeros(len(images), len(candidates))
            logits[:, 0] = math.log(3)
            return logits

    method = Sure()
    method.prepare(tiny_clip)
    benchmark, sets = toy_benchmark(1)
    look = make_look(tiny_clip, 1, benchmark=benchmark, test_sets=sets, method=method)
    with torch.no_grad():
        found = Calibration().measure(look)
    classes = len(benchmark.tasks[0].classes)
    confidence = 3 / (3 + classes - 1)
    accuracy = float((sets[0].labels == 0).float().mean())
    assert found["ece"] == pytest.approx(abs(confidence - accuracy), abs=1e-6)


def test_only_classes_seen_so_far_are_candidates(tiny_clip: CLIP) -> None:
    benchmark, sets = toy_benchmark(2, Setting.CLASS_INCREMENTAL)
    with torch.no_grad():
        before, after = (
            Calibration().measure(make_look(tiny_clip, n, benchmark=benchmark, test_sets=sets))
            for n in (0, 1)
        )
    assert "ece" not in before
    assert {"ece", "ece/task0", "union_ece"} <= after.keys()
    assert "ece/task1" not in after
