"""The modality gap against sums written out, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clbench.clip.model import CLIP
from clbench.probes.gap import Gap, modality_gap, negative_logit
from tests.probes.looks import make_look, toy_benchmark

pytestmark = pytest.mark.usefixtures("_no_grad")


@pytest.fixture
def _no_grad():
    with torch.no_grad():
        yield


def test_the_gap_is_the_distance_of_the_means() -> None:
    random = np.random.default_rng(0)
    images, texts = random.normal(size=(5, 3)), random.normal(size=(4, 3))
    expected = sum((images[:, d].mean() - texts[:, d].mean()) ** 2 for d in range(3)) ** 0.5
    found = modality_gap(torch.from_numpy(images), torch.from_numpy(texts))
    assert found == pytest.approx(expected)


def test_every_wrong_pair_counts_once(tiny_clip: CLIP) -> None:
    benchmark, sets = toy_benchmark()
    gaps, negatives = [], []
    for task, images in zip(benchmark.tasks, sets, strict=True):
        features = tiny_clip.encode_image(images.images).double()
        texts = tiny_clip.class_features(task.classes).double()
        gaps.append(float((features.mean(0) - texts.mean(0)).norm()))
        scale = float(tiny_clip.logit_scale.exp())
        pairs = [
            scale * float(features[i] @ texts[c])
            for i, label in enumerate(images.labels.tolist())
            for c in range(len(texts))
            if c != label
        ]
        negatives.append(sum(pairs) / len(pairs))
    probe = Gap()
    look = make_look(tiny_clip, benchmark=benchmark, test_sets=sets)
    probe.start(look)
    found = probe.measure(look)
    assert found["gap"] == pytest.approx(np.mean(gaps), rel=1e-5)
    assert found["negative_logit"] == pytest.approx(np.mean(negatives), rel=1e-5)
    assert found["gap/task1"] == pytest.approx(gaps[1], rel=1e-5)
    assert found["negative_logit/task2"] == pytest.approx(negatives[2], rel=1e-5)
    assert found["negative_drift"] == 0


def test_the_drift_is_relative_to_the_start(tiny_clip: CLIP) -> None:
    probe = Gap()
    probe.start(make_look(tiny_clip))
    tiny_clip.logit_scale.data += float(np.log(1.25))
    assert probe.measure(make_look(tiny_clip))["negative_drift"] == pytest.approx(0.25, rel=1e-4)


def test_images_and_texts_in_one_place_have_no_gap() -> None:
    same = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    assert modality_gap(same, same[:1]) == pytest.approx(0)
    assert negative_logit(same @ same.T, torch.tensor([0, 1])) == pytest.approx(1)
