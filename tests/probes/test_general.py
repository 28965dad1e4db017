"""Accuracy on general images against counting, by the model and by a method's own answers."""

from __future__ import annotations

import pytest
import torch

from clbench.clip.model import CLIP
from clbench.core.method import Method
from clbench.core.probe import GeneralSet, ProbeData
from clbench.probes.general import General
from tests.probes.looks import make_look, toy_benchmark


def data() -> ProbeData:
    benchmark, sets = toy_benchmark()
    names = ("imagenet", "imagenet-r", "imagenet-r-clean")
    pairs = zip(names, benchmark.tasks, sets, strict=True)
    return ProbeData(general=tuple(GeneralSet(n, task.classes, x) for n, task, x in pairs))


def test_every_image_counts_once(tiny_clip: CLIP) -> None:
    expected = {}
    with torch.no_grad():
        for one in data().general:
            images, labels = one.images.__getitems__(range(len(one.images)))
            scores = tiny_clip.logits(images, tiny_clip.class_features(one.classes))
            right = [
                int(row.argmax()) == int(label) for row, label in zip(scores, labels, strict=True)
            ]
            expected[one.name] = sum(right) / len(right)
        found = General().measure(make_look(tiny_clip, data=data()))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    mean = (expected["imagenet"] + expected["imagenet-r"]) / 2
    assert found["mean"] == pytest.approx(mean), "clean images do not count twice"


def test_the_method_is_asked(tiny_clip: CLIP) -> None:
    class First(Method):
        name, paper = "first", ""

        def loss(self, batch):
            return {}

        def classify(self, images, candidates):
            return -torch.arange(len(candidates)).expand(len(images), -1).float()

    method = First()
    method.prepare(tiny_clip)
    with torch.no_grad():
        found = General().measure(make_look(tiny_clip, data=data(), method=method))
    labels = data().general[0].images.__getitems__(range(24))[1]
    assert found["imagenet"] == pytest.approx(float((labels == 0).float().mean()))
