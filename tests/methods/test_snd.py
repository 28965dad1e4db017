"""SnD: the released runs, and a teacher for each image."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.teacher import frozen_copy
from clbench.core.data import Batch
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan, trained_parameters
from clbench.engine.training.footprints import measured, state_bytes
from clbench.engine.training.modules import planned
from clbench.methods.snd import SnD, distillation_by_degree, previous_degrees
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, end, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden.distilling import Recorded, chosen, give_tokens, numbered_task, opened
from tests.golden.golden import read
from tests.golden.subspaces import assert_near


def test_reproduces_the_released_runs():
    golden, model = opened("snd")
    hp = golden.metadata["hp"]
    method = SnD(
        previous=hp["ratio_prev"],
        pretrained=hp["ratio_pretrained"],
        threshold=hp["threshold"],
        scale=hp["scale"],
        label_smoothing=hp["label_smoothing"],
        reference_batch=hp["ref_batch"],
        as_released=True,
    )
    method.prepare(model)
    trained = [name for name, p in model.network.named_parameters() if p.requires_grad]
    assert all(name.startswith("visual.") for name in trained)
    for index in range(len(hp["classes"])):
        own = golden.below(f"task{index}.")
        data = Recorded(golden.tensors["ref_pool"], own["ref_batches"], 1)
        give_tokens(model, own["tokens"])
        method.train()
        method.begin_task(numbered_task(golden, index), data)
        train(method, hp, own, golden.tensors["ref_pool"])
        method.eval()
        method.end_task(numbered_task(golden, index), data)
        state = model.export_state_dict()
        for name, expected in golden.below(f"task{index}.after.").items():
            for found, part in zip(shown(name, state[name]), shown(name, expected), strict=True):
                assert_near(found, part, 5e-5)
        for other in range(len(hp["classes"])):
            tokens = golden.tensors[f"task{other}.tokens"].long()
            with torch.no_grad():
                texts = model.encode_text(tokens)
                logits = model.logits(golden.tensors["probe_images"].float(), texts)
            assert_near(logits, own[f"probe_logits.task{other}"], 5e-4)


def shown(name, weight):
    """The parts of a weight that are compared: rounding alone moves the bias of keys."""
    if name.endswith("in_proj_bias"):
        query, _, value = weight.chunk(3)
        return query, value
    return (weight,)


def train(method, hp, own, pool):
    settings = TrainSettings(
        weight_decay=hp["wd"], betas=tuple(hp["betas"]), warmup=int(hp["warmup"])
    )
    optimizer, schedule = planned(method, TrainingPlan(len(own["batches"]), hp["lr"], settings))
    for step, rows in enumerate(own["batches"]):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(own["lr"][step].item())
        images = chosen(pool, own["ref_batches"][step])
        first, last = method.first.features(images), method.last.features(images)
        degrees = previous_degrees(first, last, hp["threshold"], hp["scale"])
        assert_near(degrees, own["scores"][step], 1e-5)
        labels = own["pool_labels"][rows[rows >= 0]].long()
        terms = method.loss(Batch(chosen(own["pool"], rows), labels, own["tokens"].long()))
        found = torch.stack([*terms.values()]).detach()
        weights = torch.tensor([1, hp["ratio_prev"], hp["ratio_pretrained"]])
        names = ("loss_ce", "loss_prev", "loss_pretrained")
        assert_near(found / weights, torch.stack([own[name][step] for name in names]), 5e-5)
        assert_near(found.sum(), own["loss_total"][step], 5e-5)
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
        schedule.step()


def test_terms_are_those_of_the_release_and_of_the_paper():
    golden = read("snd")
    hp, terms = golden.metadata["hp"], golden.below("terms.")
    student = terms["student_features"].requires_grad_()
    first, last = terms["pretrained_features"], terms["previous_features"]
    degrees = previous_degrees(first, last, hp["threshold"], hp["scale"])
    assert_near(degrees, terms["scores"], 1e-5)
    per_image = distillation_by_degree(student, first, last, degrees)
    released = distillation_by_degree(student, first, last, degrees.mean())
    for found, kind in ((per_image, "_per_image"), (released, "")):
        for term, name in zip(found, ("loss_prev", "loss_pretrained"), strict=True):
            assert_near(term.detach(), terms[name + kind], 1e-5)
    (hp["ratio_prev"] * released[0] + hp["ratio_pretrained"] * released[1]).backward()
    assert_near(student.grad, terms["grad_student_features"], 1e-6)


def test_each_image_has_the_teacher_that_suits_it():
    """The claim: the previous teacher where both differ, the first where they agree."""
    first = F.normalize(torch.randn(2, 8), dim=1)
    last = torch.stack([F.normalize(-first[0] + 0.1, dim=0), first[1]])
    student = F.normalize(torch.randn(2, 8), dim=1).requires_grad_()
    degrees = previous_degrees(first, last, 1.0, 40.0)
    from_last, from_first = distillation_by_degree(student, first, last, degrees)
    (to_last,) = torch.autograd.grad(from_last, student)
    (to_first,) = torch.autograd.grad(from_first, student)
    assert to_last[0].norm() > 0.1
    assert to_last[1].norm() < 1e-6
    assert to_first[0].norm() < 1e-6
    assert to_first[1].norm() > 0.1


def test_teachers_are_the_first_model_and_the_one_before_the_task(tiny_task_data):
    method = SnD(reference_batch=6)
    method.prepare(make_clip())
    images = first_batch(tiny_task_data(0)[1]).images
    initial = frozen_copy(method.model).encode_image(images)
    for index in range(2):
        task, data = tiny_task_data(index)
        before = frozen_copy(method.model).encode_image(images)
        driven = begin(method, task, data)
        run_steps(method, data, driven, range(4))
        assert torch.equal(method.first.features(images), initial)
        assert torch.equal(method.last.features(images), before)
        assert torch.equal(before, initial) == (index == 0)
        end(method, task, data)


def moved(tiny_task_data, **options):
    """How far features of other images went in the second task, from both teachers."""
    method = SnD(reference_batch=12, threshold=0.0, **options)
    method.prepare(make_clip())
    run_task(method, *tiny_task_data(0), steps=8)
    task, data = tiny_task_data(1)
    driven = begin(method, task, data)
    images = first_batch(data).images
    run_steps(method, data, driven, range(12))
    with torch.no_grad():
        now = method.model.encode_image(images)
    return [(now - t.features(images)).norm().item() for t in (method.first, method.last)]


def test_distillation_holds_features_to_either_teacher(tiny_task_data):
    free = moved(tiny_task_data, previous=0.0, pretrained=0.0)
    first = moved(tiny_task_data, previous=0.0, pretrained=300.0, scale=0.01)
    last = moved(tiny_task_data, previous=300.0, pretrained=0.0, scale=0.01)
    assert first[0] < 0.7 * free[0]
    assert last[1] < 0.7 * free[1]
    assert first[0] < last[0]
    assert last[1] < first[1]


def test_only_the_image_encoder_is_trained_and_stored(tiny_clip, tiny_task_data):
    size = state_bytes(tiny_clip)
    method = SnD(reference="a/folder")
    method.prepare(tiny_clip)
    visual = list(tiny_clip.network.visual.parameters())
    assert {id(p) for p in trained_parameters(method)} == {id(p) for p in visual}
    task, data = tiny_task_data(0)
    run_task(method, task, data, steps=1)
    assert measured(method, size).stored == sum(p.nbytes for p in visual)
    assert method.footprint().external == data.images.numel() + sum(map(len, data.captions))


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(SnD, {"reference_batch": 8, "as_released": True})
