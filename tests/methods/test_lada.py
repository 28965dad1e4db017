"""LADA: its equations as reference values have them, and what later tasks leave alone."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.data import Batch
from clbench.core.task import ClassTexts
from clbench.methods.lada import (
    LADA,
    AdaptedMLP,
    augmented,
    k_means,
    spherical_mixture,
    unit_scores,
)
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_clip, make_tasks
from tests.golden.golden import read
from tests.golden.subspaces import assert_near


@pytest.fixture(scope="module")
def golden():
    return read("lada")


class GivenFeatures(nn.Module):
    """A model whose images are features and whose text features are given."""

    def __init__(self, hp):
        super().__init__()
        self.scale, self.texts = hp["logit_scale"], torch.zeros(0)
        self.network = SimpleNamespace(visual=SimpleNamespace(output_dim=hp["dim"]))

    def blocks(self, _):
        return []

    def encode_image(self, images):
        return images

    def text_features(self, _):
        return self.texts

    def class_features(self, classes):
        return self.texts[list(classes.ids)]

    def similarities(self, features, texts):
        return self.scale * features @ texts.T


def some_classes(ids):
    names = tuple(f"class {number}" for number in ids)
    return ClassTexts(names, tuple((name,) for name in names), tuple(ids))


def method_of(golden):
    hp = golden.metadata["hp"]
    method = LADA(
        units_per_class=hp["units"],
        beta=hp["beta"],
        alpha=hp["alpha"],
        components=hp["components"],
        normalise_prototypes=hp["normalise_prototypes"],
    )
    method.prepare(GivenFeatures(hp))
    return method


def trained_on(method, own, hp, known):
    """Train the units as the reference run did, and compare every step with it."""
    method.model.texts = own["text_tuned"]
    method.units = nn.Parameter(own["init_units"].clone())
    optimizer = torch.optim.AdamW([method.units], lr=hp["lr"], weight_decay=hp["wd"])
    prompts = torch.zeros(0, dtype=torch.int64)
    first = int(own["labels"].min())
    for step, rows in enumerate(own["batches"].long()):
        method._noise = lambda step=step: own["noise"][step]
        batch = Batch(own["features"][rows], own["labels"][rows].long() - first, prompts)
        terms = method.loss(batch)
        assert_near(terms["classification"].detach(), own["loss_current"][step], 1e-5)
        prototypes = terms.get("prototypes", torch.tensor(0.0)).detach()
        assert_near(prototypes, own["loss_prototype"][step], 1e-5)
        assert ("prototypes" in terms) == bool(known)
        optimizer.zero_grad()
        total = torch.stack([*terms.values()]).sum()
        assert_near(total.detach(), own["loss_total"][step], 1e-5)
        total.backward()
        optimizer.step()
    assert_near(method.units.detach(), own["units"], 1e-5)


def learned_tasks(golden):
    return sorted({int(n[4]) for n in golden.tensors if n.startswith("task") and "units" in n})


def test_losses_units_and_answers_are_those_of_the_equations(golden):
    hp, tensors = golden.metadata["hp"], golden.tensors
    method, known = method_of(golden), 0
    for task in learned_tasks(golden):
        own = golden.below(f"task{task}.")
        trained_on(method, own, hp, known)
        count = len(own["units"])
        method.memory.add(
            range(known, known + count),
            units=method.units.detach(),
            texts=own["text_tuned"],
            means=own["mixture_means"],
            variances=own["mixture_variances"],
        )
        known += count
    assert known
    probe = tensors["probe.features"]
    found = unit_scores(probe, method.memory.units, hp["beta"])
    assert_near(found, tensors["probe.lada_logits"], 1e-4)
    frozen = [tensors[f"task{task}.text_frozen"] for task in range(len(hp["classes"]))]
    method.model.texts = torch.cat(frozen)
    order = torch.randperm(len(method.model.texts)).tolist()
    with torch.no_grad():
        answers = method.classify(probe, some_classes(order))
    assert_near(answers, tensors["probe.fused_logits"][:, order], 1e-4)
    predicted = torch.tensor(order)[answers.argmax(dim=1)]
    assert torch.equal(predicted, tensors["probe.prediction"].long())


def test_first_steps_are_those_of_the_equations(golden):
    hp = golden.metadata["hp"]
    units, texts, means, variances = [], [], [], []
    for task in learned_tasks(golden):
        own = golden.below(f"task{task}.")
        features = own["features"][own["batches"][0].long()]
        now = torch.cat([*units, own["init_units"]])
        given = torch.cat([*texts, own["text_tuned"]])
        near = unit_scores(features, now, hp["beta"])
        assert_near(near, own["lada_logits_step0"], 1e-5)
        logits = hp["logit_scale"] * features @ given.T + hp["alpha"] * near
        assert_near(logits, own["logits_step0"], 1e-4)
        if means:
            prototypes = augmented(
                torch.cat(means),
                torch.cat(variances),
                own["noise"][0],
                hp["normalise_prototypes"],
            )
            assert_near(prototypes, own["prototypes_step0"], 1e-6)
            near = unit_scores(prototypes, now, hp["beta"])
            logits = hp["logit_scale"] * prototypes @ given.T + hp["alpha"] * near
            assert_near(logits, own["prototype_logits_step0"], 1e-4)
        units.append(own["units"])
        texts.append(own["text_tuned"])
        means.append(own["mixture_means"])
        variances.append(own["mixture_variances"])
    assert means


def test_prototypes_of_unit_length_if_asked_for():
    means, variances = torch.ones(2, 3, 4), torch.full((2, 3), 0.25)
    noise = torch.randn(2, 3, 4)
    plain = augmented(means, variances, noise, normalise=False)
    assert_near(plain[4], means[1, 1] + 0.5 * noise[1, 1], 1e-6)
    unit = augmented(means, variances, noise, normalise=True)
    assert_near(unit, F.normalize(plain, dim=1), 1e-6)


def blobs(*sizes, spread=0.1, width=8):
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.eye(len(sizes), width)
    rows = [
        centre + spread * torch.randn(size, width, generator=generator)
        for centre, size in zip(centres, sizes, strict=True)
    ]
    return centres, torch.cat(rows)


def test_k_means_finds_what_is_there():
    centres, rows = blobs(40, 10, 25)
    found, nearest = k_means(rows, 3, torch.Generator().manual_seed(1))
    assert torch.cdist(centres, found).amin(dim=1).max() < 0.2
    assert sorted(nearest.bincount().tolist()) == [10, 25, 40]
    for number in range(3):
        assert_near(found[number], rows[nearest == number].mean(dim=0), 1e-5)


def test_k_means_repeats_rows_where_there_are_too_few():
    rows = torch.randn(3, 5)
    found, nearest = k_means(rows, 7, torch.Generator())
    assert torch.equal(found, rows[[0, 1, 2, 0, 1, 2, 0]])
    assert nearest.tolist() == [0, 1, 2]
    found, _ = k_means(torch.ones(9, 5), 4, torch.Generator())
    assert torch.equal(found, torch.ones(4, 5))


def test_the_mixture_has_means_and_variances_of_its_parts():
    centres, rows = blobs(400, 300, spread=0.2)
    means, variances = spherical_mixture(rows, 2, torch.Generator().manual_seed(0))
    assert torch.cdist(centres, means).amin(dim=1).max() < 0.1
    assert_near(variances, torch.full((2,), 0.04), 0.005)
    means, variances = spherical_mixture(rows[:2], 3, torch.Generator())
    assert torch.equal(means, rows[[0, 1, 0]])
    assert not variances.any()


def test_an_adapter_starts_without_effect_and_leaves_none():
    base = nn.Linear(6, 6)
    adapted, x = AdaptedMLP(base, 6, 4, 0.5), torch.randn(3, 6)
    adapted.start(torch.Generator())
    assert torch.equal(adapted(x), base(x))
    with torch.no_grad():
        adapted.up.normal_()
        adapted.up_bias.normal_()
        adapted.down_bias.normal_()
    inner = (x @ adapted.down.T + adapted.down_bias).relu()
    expected = base(x) + 0.5 * (inner @ adapted.up.T + adapted.up_bias)
    assert_near(adapted(x), expected, 1e-6)
    adapted.stop()
    assert torch.equal(adapted(x), base(x))


def test_later_tasks_leave_earlier_classes_alone(tiny_clip):
    """The claim: units and texts of a class stay, and so does its score."""
    (first, data), (second, other) = make_tasks(3, 4)
    method = LADA(units_per_class=4, components=2)
    method.prepare(tiny_clip)
    run_task(method, first, data, steps=4)
    before = scores(method, data.images, first.classes)
    kept = copy.deepcopy(method.memory)
    run_task(method, second, other, steps=4)
    assert torch.equal(scores(method, data.images, first.classes), before)
    for name, tensor in kept.named_buffers():
        assert torch.equal(getattr(method.memory, name)[: len(tensor)], tensor)
    assert len(method.memory.ids) == 7


def test_classes_not_learned_are_those_of_zero_shot_clip():
    (first, data), (second, _) = make_tasks(3, 4)
    method = LADA()
    method.prepare(make_clip())
    run_task(method, first, data, steps=4)
    clip = make_clip()
    with torch.no_grad():
        expected = clip.logits(data.images, clip.class_features(second.classes))
    assert_near(scores(method, data.images, second.classes), expected, 1e-5)


def test_units_and_texts_both_learn(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    method = LADA(units_per_class=4)
    method.prepare(tiny_clip)
    driven = begin(method, task, data)
    start = method.units.detach().clone()
    with torch.no_grad():
        texts = tiny_clip.class_features(task.classes)
    run_steps(method, data, driven, range(10))
    assert (method.units - start).norm() > 1e-2
    end(method, task, data)
    assert (method.memory.texts - texts).norm() > 1e-2
    with torch.no_grad():
        assert torch.equal(tiny_clip.class_features(task.classes), texts)


def test_a_class_without_images_starts_at_its_text(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    data.images, data.labels = data.images[data.labels != 1], data.labels[data.labels != 1]
    method = LADA(units_per_class=2, components=2)
    method.prepare(tiny_clip)
    driven = begin(method, task, data)
    with torch.no_grad():
        text = tiny_clip.class_features(task.classes)[1]
    assert_near(method.units[1].detach(), text.expand(2, -1), 1e-6)
    losses = run_steps(method, data, driven, range(3))
    end(method, task, data)
    assert torch.tensor(losses).isfinite().all()
    assert torch.isfinite(method.memory.means).all()
    assert not method.memory.variances[1].any()


def test_prototypes_hold_earlier_classes_in_place():
    """Units of new classes stay away from where earlier ones are."""
    scored = {}
    for weight in (0.0, 1.0):
        (first, data), (second, other) = make_tasks(3, 4)
        method = LADA(units_per_class=4, components=2)
        method.prepare(make_clip())
        run_task(method, first, data, steps=2)
        plain = method.loss
        method.loss = lambda batch, plain=plain, weight=weight: {
            name: term * (weight if name == "prototypes" else 1.0)
            for name, term in plain(batch).items()
        }
        run_task(method, second, other, steps=40, rate=1e-2)
        both = scores(method, data.images, first.classes + second.classes).softmax(dim=1)
        scored[weight] = both[:, :3].sum(dim=1).mean()
    assert scored[1.0] > scored[0.0] + 0.01
