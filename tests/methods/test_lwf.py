"""LwF: losses and weights as released, and what a teacher that is a copy is good for."""

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.methods.lwf import LwF
from clbench.testing.driving import begin, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden import distilling


def test_losses_and_weights_are_the_released_ones():
    golden, model = distilling.opened("lwf")
    hp = golden.metadata["hp"]
    method = LwF(temperature=hp["T"], label_smoothing=hp["label_smoothing"])
    method.prepare(model)
    for task in range(2):
        own = golden.below(f"task{task}.")
        distilling.give_tokens(model, own["tokens"])
        data = distilling.Recorded(own["pool"], own["ref_batches"], len(own["tokens"]))
        terms = distilling.train(method, golden, task, data)
        distilling.assert_as_golden(model, golden, task, terms)
        assert len(golden.below(f"task{task}.after.")) == 5


def judgement(method, task, images):
    """Probabilities of the first task's classes."""
    with torch.no_grad():
        return method.classify(images, task.classes).softmax(dim=1)


def drift(method, tiny_task_data):
    """How far the second task moves the answers that its images get among its class names."""
    run_task(method, *tiny_task_data(0), steps=5)
    task, data = tiny_task_data(1)
    driven = begin(method, task, data)
    before = method.teacher.logits(data.images)
    texts = method.teacher.texts.clone()
    run_steps(method, data, driven, range(8))
    after = method.model.logits(data.images, texts).detach()
    return (after.log_softmax(1) - before.log_softmax(1)).abs().mean().item()


def test_distillation_holds_what_the_teacher_said(tiny_task_data):
    moved = {}
    for weight in (0.0, 20.0):
        method = LwF(distillation=weight)
        method.prepare(make_clip())
        moved[weight] = drift(method, tiny_task_data)
    assert moved[20.0] < 0.5 * moved[0.0]


def test_the_teacher_is_the_model_that_the_task_found_and_stays_it(tiny_clip, tiny_task_data):
    method = LwF()
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    task, data = tiny_task_data(1)
    expected = tiny_clip.logits(data.images, tiny_clip.encode_text(data.prompts)).detach()
    driven = begin(method, task, data)
    run_steps(method, data, driven, range(3))
    torch.testing.assert_close(method.teacher.logits(data.images), expected)
    now = tiny_clip.logits(data.images, tiny_clip.encode_text(data.prompts))
    assert not torch.allclose(now, expected, atol=1e-2)


def test_distillation_has_no_gradient_in_the_text_encoder(tiny_clip, tiny_task_data):
    method = LwF()
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    run_steps(method, data, begin(method, task, data), range(2))
    tiny_clip.zero_grad()
    method.loss(first_batch(data))["distillation"].backward()
    assert tiny_clip.network.visual.proj.grad.norm() > 0
    assert tiny_clip.network.text_projection.grad is None


def test_a_teacher_that_shares_its_weights_distils_nothing(tiny_clip, tiny_task_data):
    method = LwF(as_released=True)
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    run_steps(method, data, begin(method, task, data), range(3))
    tiny_clip.zero_grad()
    terms = method.loss(first_batch(data))
    terms["distillation"].backward()
    assert tiny_clip.network.visual.proj.grad.norm() < 1e-4
    assert terms["distillation"] > 0.1


def test_reference_images_are_the_tasks_own_in_an_order_of_their_own(tiny_clip, tiny_task_data):
    asked = []
    method = LwF()
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    real = data.reference_stream

    def noting(images, texts, seed):
        asked.append((images, texts, seed))
        return real(images, texts, seed)

    data.reference_stream = noting
    for _ in range(2):
        run_task(method, task, data, steps=1)
    assert [sources[:2] for sources in asked] == [("task", "task")] * 2
    assert asked[0][2] != asked[1][2]
    assert method.footprint().external == 0


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"reference_batch": 0}])
def test_refuses_impossible_values(arguments):
    with pytest.raises(ClbenchError, match="input should be greater than"):
        LwF(**arguments)
