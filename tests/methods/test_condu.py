"""ConDU: unified and decoupled as released, and models chosen image by image."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.merging import flatten, packed, unified_with, unpacked
from clbench.core.errors import ClbenchError
from clbench.core.training import trained_parameters
from clbench.methods.condu import ConDU, nearness, prototypes_of
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_tasks
from tests.golden.golden import read


def test_unifies_and_decouples_as_released():
    golden = read("condu")
    tasks = golden.metadata["hp"]["tasks"]
    start = golden.below("theta0.")
    names = sorted(name for name, value in start.items() if value.is_floating_point())
    sizes = [start[name].numel() for name in names]

    def row(prefix, tensors=golden.tensors):
        return flatten(tensors[f"{prefix}.{name}"] for name in names)

    unified = row("theta0")
    masks, factors = torch.zeros(0, sum(sizes), dtype=torch.bool), torch.zeros(0)
    for s in range(tasks):
        delta = row(f"finetuned{s}") - row("theta0")
        unified, masks, factors = unified_with(unified, masks, factors, delta, sizes)
        expected = row(f"session{s}.unified")
        torch.testing.assert_close(unified, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            factors, golden.tensors[f"session{s}.rescalers"], atol=1e-6, rtol=0
        )
        for i, mask in enumerate(masks):
            assert torch.equal(mask, row(f"session{s}.mask{i}").bool())
        masks = unpacked(packed(masks), sum(sizes))
    for i in range(tasks):
        decoupled = row("theta0") + factors[i] * masks[i] * unified
        torch.testing.assert_close(decoupled, row(f"decoupled{i}"), atol=1e-6, rtol=0)


def prototypes(golden):
    parts = [
        golden.tensors[f"agnostic.prototypes{i}"] for i in range(golden.metadata["hp"]["tasks"])
    ]
    owners = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
    return torch.cat(parts), owners


def test_chooses_models_as_the_released_task_agnostic_evaluation(tiny_clip):
    golden = read("condu")
    features, texts = golden.tensors["agnostic.features"], golden.tensors["agnostic.text_weights"]
    features = F.normalize(features, dim=-1)
    method = ConDU()
    method.prepare(tiny_clip)
    method.prototypes, method.owners = prototypes(golden)
    method.factors = torch.ones(golden.metadata["hp"]["tasks"])
    method.ids = torch.arange(len(method.owners))
    near = nearness(features[0], method.prototypes, method.owners)
    torch.testing.assert_close(near, golden.tensors["agnostic.similarity"], atol=1e-5, rtol=0)
    logits = 100 * features @ texts
    for k in golden.metadata["hp"]["logits_num"]:
        method.nearest = k
        answering = method._answering(features[0], make_tasks(2)[0][0].classes)
        found = (logits * answering.T[:, :, None]).sum(dim=0) / answering.sum(dim=1, keepdim=True)
        torch.testing.assert_close(
            found, golden.tensors[f"agnostic.k{k}.logits"], atol=1e-4, rtol=0
        )
        assert torch.equal(found.argmax(dim=1), golden.tensors[f"agnostic.k{k}.prediction"].long())


def test_prototypes_are_the_released_ones():
    golden = read("condu")
    recorded = golden.below("prototype_fit.")
    texts = recorded["text_features"]
    texts = F.normalize(texts, dim=-1).mean(dim=1)
    images = F.normalize(recorded["image_features"], dim=-1)
    chosen = F.one_hot(recorded["labels"].long(), len(texts)).float()
    found = prototypes_of(chosen.T @ images, chosen.sum(dim=0), texts)
    torch.testing.assert_close(found, recorded["prototypes"], atol=1e-6, rtol=0)


def learned(model, tasks, steps=1, **options):
    method = ConDU(**options)
    method.prepare(model)
    for task, data in tasks:
        run_task(method, task, data, steps=steps, rate=3e-4)
    return method


def test_every_task_starts_from_zero_shot_and_the_model_returns_to_it(tiny_clip):
    method = ConDU()
    method.prepare(tiny_clip)
    weights = trained_parameters(method)
    initial, trained = flatten(weights), []
    for task, data in make_tasks(3, 4):
        driven = begin(method, task, data)
        assert torch.equal(flatten(weights), initial)
        run_steps(method, data, driven, range(3))
        trained.append(flatten(weights))
        end(method, task, data)
        assert torch.equal(flatten(weights), initial)
    for i, expected in enumerate(trained):
        with method._model_of(i):
            decoupled = flatten(weights)
        assert F.cosine_similarity(decoupled - initial, expected - initial, 0) > 0.5
    assert torch.equal(flatten(weights), initial)


def test_each_task_is_answered_by_what_was_learned_for_it(tiny_clip):
    """The claim: fine-tuned alone and unified, both tasks keep what their own model knew."""
    tasks = make_tasks(3, 4)

    def losses(method):
        return torch.tensor(
            [F.cross_entropy(scores(method, d.images, t.classes), d.labels) for t, d in tasks]
        )

    fresh = ConDU()
    fresh.prepare(tiny_clip)
    before = losses(fresh)
    method = learned(tiny_clip, tasks, steps=10, choose="dataset")
    assert (losses(method) < before - 0.1).all()


def test_the_model_of_the_data_set_answers_alone_if_told(tiny_clip):
    tasks = make_tasks(3, 4)
    method = learned(tiny_clip, tasks, choose="dataset")
    images = torch.cat([data.images for _, data in tasks])
    for i, (task, _) in enumerate(tasks):
        with method._model_of(i), torch.no_grad():
            alone = tiny_clip.logits(images, tiny_clip.class_features(task.classes))
        torch.testing.assert_close(scores(method, images, task.classes), alone)
    both = tasks[0][0].classes + tasks[1][0].classes
    agnostic = learned(tiny_clip, [], choose="image")
    agnostic.load_state_dict(method.state_dict())
    torch.testing.assert_close(scores(method, images, both), scores(agnostic, images, both))


def test_stores_a_bit_per_weight_and_task(tiny_clip):
    method = learned(tiny_clip, make_tasks(3, 4, 2))
    size = sum(weight.numel() for weight in trained_parameters(method))
    assert method.unified.nbytes == 4 * size
    assert method.masks.nbytes == 3 * -(-size // 8)
    assert method.prototypes.shape == (9, 32)
    assert method.owners.tolist() == [0] * 3 + [1] * 4 + [2] * 2


def test_refuses_to_ask_no_model():
    with pytest.raises(ClbenchError, match="nearest=0: input should be greater than or equal to 1"):
        ConDU(nearest=0)
