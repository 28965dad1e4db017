"""RAIL: the released regressions and their fusion, and that the order of images does not matter."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.data import Batch
from clbench.core.task import ClassTexts, Task
from clbench.methods.rail import RAIL, DualRidge, PrimalRidge, fused, random_projection
from clbench.testing.checks import check_method
from clbench.testing.driving import run_task, scores
from clbench.testing.toys import make_clip
from tests.golden.golden import read
from tests.golden.subspaces import assert_near

FORMS = ("primal", "dual")


@pytest.fixture(scope="module")
def golden():
    return read("rail")


def unit(features, dtype=torch.float64):
    return F.normalize(features.to(dtype), dim=1)


def regression_of(golden, form):
    hp = golden.metadata["hp"]
    if form == "dual":
        return DualRidge(hp["dim"], hp["gamma"], hp["lambda"])
    return PrimalRidge(golden.tensors["projection"], hp["regularization"])


def taught(golden, form, dtype):
    """The regression after each task, with what is recorded of it."""
    hp, tensors = golden.metadata["hp"], golden.tensors
    regression, first = regression_of(golden, form), 0
    for task, classes in enumerate(hp["classes"]):
        rows = unit(tensors[f"task{task}.features"], dtype).split(hp["batch"])
        labels = (first + tensors[f"task{task}.labels"]).split(hp["batch"])
        regression.learn(zip(rows, labels, strict=True), classes)
        first += classes
        yield regression, first, golden.below(f"f{dtype.itemsize * 8}.{form}.task{task}.")


def assert_close(found, expected, bound, relative):
    scale = expected.abs().max().item() if relative else 1.0
    assert_near(found.to(expected.dtype), expected, bound * scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_regression_and_fusion_are_the_released_ones(golden, form, dtype):
    """Also against the release's float32 run, which is less exact."""
    hp, tensors = golden.metadata["hp"], golden.tensors
    inner, outer = (1e-9, 1e-9) if dtype is torch.float64 else (1e-3, 1e-4)
    probes = unit(tensors["probe.features"], dtype)
    texts = tensors["text_weights"].to(dtype)
    zero_shot = (hp["logit_scale"] * probes @ texts).softmax(dim=1)
    bits = f"f{dtype.itemsize * 8}"
    assert_close(zero_shot, tensors[f"{bits}.zero_shot"], outer, relative=False)
    held = {"W": "weight", "R": "inverse", "alpha": "alpha"}
    seen = set()
    for regression, known, recorded in taught(golden, form, dtype):
        for name in held.keys() & recorded.keys():
            found = getattr(regression, held[name])
            assert_close(found, recorded[name], inner, relative=True)
            seen.add(name)
        found = regression.scores(probes)
        assert_close(found, recorded["scores"], outer, relative=False)
        padded = F.pad(found, [0, zero_shot.shape[1] - known]).to(dtype)
        learned = torch.arange(zero_shot.shape[1]) < known
        mixed = fused(zero_shot, padded, learned, hp["fusion_weight"])
        assert_close(mixed, recorded["fused"], outer, relative=False)
        if "adapted" in recorded:
            assert torch.equal(learned[zero_shot.argmax(1)].long(), recorded["adapted"])
        if "prediction" in recorded:
            assert torch.equal(mixed.argmax(1), recorded["prediction"])
    assert seen >= ({"W"} if form == "primal" else {"alpha"})


class FeaturesForImages(nn.Module):
    """A model whose images are their own features, and whose classes are columns of T."""

    def __init__(self, golden):
        super().__init__()
        self.scale = golden.metadata["hp"]["logit_scale"]
        self.texts = golden.tensors["text_weights"].T
        width = golden.metadata["hp"]["dim"]
        self.network = SimpleNamespace(visual=SimpleNamespace(output_dim=width))

    def encode_image(self, images):
        return F.normalize(images, dim=1)

    def class_features(self, candidates):
        return self.texts[list(candidates.ids)]

    def similarities(self, features, class_features):
        return self.scale * features @ class_features.T


class FeatureData:
    """A golden task's features and labels, as a training set."""

    def __init__(self, features, labels, batch):
        self.parts = zip(features.split(batch), labels.split(batch), strict=True)

    def batches(self, _):
        return (Batch(x, y, torch.zeros(0, dtype=torch.int64)) for x, y in self.parts)


def classes_of(ids):
    names = tuple(f"class {number}" for number in ids)
    return ClassTexts(names, tuple((name,) for name in names), tuple(ids))


@pytest.mark.parametrize("form", FORMS)
def test_the_method_answers_as_released(golden, form):
    """In the order of the candidates, whatever that is, and with classes not learned."""
    hp, tensors = golden.metadata["hp"], golden.tensors
    names = {"primal": "regularization", "dual": "lambda"}
    method = RAIL(
        form=form,
        hidden=hp["hidden"],
        gamma=hp["gamma"],
        regularization=hp[names[form]],
        fusion=hp["fusion_weight"],
    )
    method.prepare(FeaturesForImages(golden))
    if form == "primal":
        method.regression.projection.copy_(tensors["projection"])
    order = torch.randperm(sum(hp["classes"]) + hp["unseen_classes"]).tolist()
    first = 0
    for task, count in enumerate(hp["classes"]):
        own = golden.below(f"task{task}.")
        data = FeatureData(own["features"], own["labels"], hp["batch"])
        method.end_task(Task("golden", classes_of(range(first, first + count))), data)
        first += count
        recorded = golden.below(f"f64.{form}.task{task}.")
        answers = method.classify(tensors["probe.features"], classes_of(order))
        assert_near(answers, recorded["fused"][:, order].float(), 1e-4)
        predicted = torch.tensor(order)[answers.argmax(dim=1)]
        assert torch.equal(predicted, recorded["prediction"])


def test_the_projection_starts_as_a_linear_layer_does():
    rows = random_projection(64, 500, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert_near(rows, nn.Linear(64, 500, bias=False).weight.detach(), 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_tasks_one_by_one_are_all_tasks_at_once(golden, form):
    """The claim: the regression is that of joint training, in whatever order images come."""
    tensors, counts = golden.tensors, golden.metadata["hp"]["classes"]
    probes = unit(tensors["probe.features"])
    *_, (after, known, _) = taught(golden, form, torch.float64)
    starts = torch.tensor([0, *counts]).cumsum(0)
    rows = unit(torch.cat([tensors[f"task{t}.features"] for t in range(len(counts))]))
    labels = torch.cat([starts[t] + tensors[f"task{t}.labels"] for t in range(len(counts))])
    order = torch.randperm(len(rows))
    joint = regression_of(golden, form)
    joint.learn([(rows[order], labels[order])], known)
    assert_near(joint.scores(probes), after.scores(probes), 1e-9)


def test_images_that_zero_shot_clip_takes_for_an_unseen_class_keep_its_answer():
    zero_shot = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    regressed = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    learned = torch.tensor([True, True, False])
    mixed = fused(zero_shot, regressed, learned, 0.75)
    assert_near(mixed, torch.tensor([[0.2, 0.3, 0.5], [0.15, 0.825, 0.025]]), 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_learns_a_task_and_leaves_classes_not_learned_to_zero_shot_clip(form, tiny_task_data):
    method = RAIL(form=form, hidden=256, regularization=1e-3)
    method.prepare(make_clip())
    task, data = tiny_task_data(0)
    before = scores(method, data.images, task.classes)
    run_task(method, task, data, steps=1)
    after = scores(method, data.images, task.classes)
    right = (after.argmax(dim=1) == data.labels).float().mean()
    assert right == 1.0
    assert (before.argmax(dim=1) == data.labels).float().mean() < 0.8
    others = ClassTexts.from_templates(["one", "two"], ["a {}."])
    others = ClassTexts(others.names, others.prompts, (90, 91))
    expected = method.model.logits(data.images, method.model.class_features(others))
    assert torch.equal(scores(method, data.images, others), expected.softmax(dim=1))


@pytest.mark.slow
def test_the_dual_form_keeps_the_contract():
    check_method(RAIL, {"form": "dual"})
