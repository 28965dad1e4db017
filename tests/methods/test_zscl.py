"""ZSCL: losses, averages and weights as released, and what its parts hold."""

import pytest
import torch

from clbench.core.training import trained_parameters
from clbench.methods.zscl import ZSCL, WeightAverage
from clbench.testing.driving import begin, end, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden import distilling


def test_losses_and_averaged_weights_are_the_released_ones():
    golden, model = distilling.opened("zscl")
    hp = golden.metadata["hp"]
    method = ZSCL(
        temperature=hp["T"],
        label_smoothing=hp["label_smoothing"],
        consolidation=hp["l2"],
        average_every=hp["avg_freq"],
    )
    method.prepare(model)
    captions = golden.tensors["captions"]
    distilling.give_tokens(model, captions)
    distilling.give_tokens(method.initial, captions)
    for task in range(2):
        own = golden.below(f"task{task}.")
        data = distilling.Recorded(golden.tensors["ref_pool"], own["ref_batches"], len(captions))
        terms = distilling.train(method, golden, task, data)
        distilling.assert_as_golden(model, golden, task, terms)
        distance = terms["consolidation"] / hp["l2"]
        bound = 1e-3 * own["loss_wc"].max().item()
        torch.testing.assert_close(distance, own["loss_wc"], atol=bound, rtol=0)
        assert len(golden.below(f"task{task}.after.")) == 5


def test_the_average_has_the_start_and_every_so_many_steps_as_members():
    average, weight = WeightAverage(), torch.zeros(2)
    average.begin([weight])
    for step in range(6):
        average.step([torch.full((2,), float(step + 1))], 3)
    # The start, and the weights after the first and the fourth step.
    assert average.mean[0].tolist() == pytest.approx([(0 + 1 + 4) / 3] * 2)


def test_weights_at_the_end_join_where_the_published_loop_has_a_step_more(
    tiny_clip, tiny_task_data
):
    method = ZSCL(average_every=2)
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    driven = begin(method, task, data)
    members = [[w.detach().clone() for w in trained_parameters(method)]]
    for step in range(4):
        run_steps(method, data, driven, range(step, step + 1))
        if step in (0, 2, 3):  # after steps 1 and 3, and the last one
            members.append([w.detach().clone() for w in trained_parameters(method)])
    end(method, task, data)
    for i, weight in enumerate(trained_parameters(method)):
        mean = torch.stack([member[i] for member in members]).mean(dim=0)
        torch.testing.assert_close(weight.detach(), mean, atol=1e-6, rtol=1e-5)


def trained(tiny_task_data, **options):
    method = ZSCL(**options)
    method.prepare(make_clip())
    task, data = tiny_task_data(0)
    driven = begin(method, task, data)
    start = [w.clone() for w in method.start]
    texts, before = method.teacher.texts.clone(), method.teacher.logits(data.images)
    run_steps(method, data, driven, range(8))
    weights = [w.detach() for w in trained_parameters(method)]
    moved = sum((now - then).square().sum() for now, then in zip(weights, start, strict=True))
    after = method.model.logits(data.images, texts).detach()
    return (after.log_softmax(1) - before.log_softmax(1)).abs().mean().item(), moved.item()


def test_distillation_holds_answers_and_consolidation_holds_weights(tiny_task_data):
    free = trained(tiny_task_data, distillation=0.0, consolidation=0.0)
    distilled = trained(tiny_task_data, distillation=20.0, consolidation=0.0)
    held = trained(tiny_task_data, distillation=0.0, consolidation=100.0)
    assert distilled[0] < 0.5 * free[0]
    assert held[1] < 0.5 * free[1]


def test_without_consolidation_there_is_no_such_term(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    method = ZSCL(consolidation=0.0)
    method.prepare(tiny_clip)
    begin(method, task, data)
    assert set(method.loss(first_batch(data))) == {"classification", "distillation"}


def test_the_teacher_is_the_first_model_for_ever(tiny_clip, tiny_task_data):
    images = tiny_task_data(0)[1].images
    expected = tiny_clip.encode_image(images).detach()
    method = ZSCL(average_every=1)
    method.prepare(tiny_clip)
    for index in range(2):
        run_task(method, *tiny_task_data(index), steps=3)
    torch.testing.assert_close(method.initial.encode_image(images), expected)
    assert not torch.allclose(tiny_clip.encode_image(images), expected, atol=1e-3)


def test_reference_data_are_those_that_were_asked_for_and_are_counted(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    asked, real = [], data.reference_stream

    def noting(images, texts, seed):
        asked.append((images, texts))
        return real(images, texts, seed)

    data.reference_stream = noting
    method = ZSCL(reference="a/folder", captions="texts.txt")
    method.prepare(tiny_clip)
    run_task(method, task, data, steps=1)
    assert asked == [("a/folder", "texts.txt")]
    cost = method.footprint()
    assert cost.external == data.images.numel() + sum(map(len, data.captions))
    assert cost.stored == sum(p.nbytes for p in tiny_clip.parameters())
