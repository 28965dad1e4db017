"""ER and DER++: a memory of the promised size, and losses among the right classes."""

import copy

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.errors import ClbenchError
from clbench.engine.training.footprints import measured, state_bytes
from clbench.methods.er import ER
from clbench.testing.driving import begin, first_batch, run_steps, run_task


def prepared(model, **options):
    method = ER(**{"capacity": 12, "replayed": 12, "crop": False} | options)
    method.prepare(model)
    return method


def after_one_task(model, tiny_task_data, **options):
    """A method that has begun its second task, and the second task's data."""
    method = prepared(model, **options)
    run_task(method, *tiny_task_data(0), steps=4)
    (_, data), (task, later) = tiny_task_data(0), tiny_task_data(1)
    task = type(task)(task.name, shifted(task.classes, 3), 1, 2)
    driven = begin(method, task, later)
    return method, task, later, driven, data


def shifted(classes, first):
    return type(classes)(classes.names, classes.prompts, tuple(range(first, first + len(classes))))


def all_logits(method, images, prompts):
    texts = torch.cat([method.model.encode_text(part) for part in prompts])
    return method.model.logits(images, texts)


@pytest.mark.parametrize("among", ["task", "learned"])
def test_images_are_told_from_the_classes_that_among_says(tiny_clip, tiny_task_data, among):
    method, _, later, _, earlier = after_one_task(
        tiny_clip, tiny_task_data, among=among, label_smoothing=0.1, replay=2.0
    )
    batch, state = first_batch(later), method.draws.generator.get_state()
    terms = method.loss(batch)
    method.draws.generator.set_state(state)
    old = method.kept.sample(12, method.draws.generator)

    prompts = [earlier.prompts, later.prompts]
    if among == "learned":
        new = all_logits(method, batch.images, prompts), batch.labels + 3
        again = all_logits(method, old.images, prompts), old.ids
    else:
        new = all_logits(method, batch.images, prompts[1:]), batch.labels
        again = all_logits(method, old.images, prompts[:1]), old.ids
    expected = F.cross_entropy(*new, label_smoothing=0.1)
    torch.testing.assert_close(terms["classification"], expected, atol=1e-4, rtol=1e-4)
    expected = 2 * F.cross_entropy(*again, label_smoothing=0.1)
    torch.testing.assert_close(terms["replay"], expected, atol=1e-4, rtol=1e-4)


def test_dark_experience_is_what_the_model_answered_when_the_task_ended(tiny_clip, tiny_task_data):
    method, _, later, driven, earlier = after_one_task(
        tiny_clip, tiny_task_data, variant="der++", dark=3.0
    )
    method.eval()
    then = method.model.logits(method.kept.images, method.model.encode_text(earlier.prompts))
    torch.testing.assert_close(method.kept.logits, then.detach(), atol=1e-4, rtol=1e-5)
    assert method.loss(first_batch(later))["dark"] < 1e-6
    run_steps(method, later, driven, range(4))
    now = method.model.logits(method.kept.images, method.model.encode_text(earlier.prompts))
    found = method.loss(first_batch(later))["dark"]  # all of the memory is replayed
    torch.testing.assert_close(found, 3 * (now - then).square().mean(), atol=1e-4, rtol=1e-4)
    assert found > 0.01


@pytest.mark.parametrize("memory", ["reservoir", "balanced"])
def test_keeps_as_many_images_and_bytes_as_promised(tiny_clip, tiny_task_data, memory):
    backbone = state_bytes(tiny_clip)
    method = prepared(tiny_clip, memory=memory)
    for index in range(2):
        run_task(method, *tiny_task_data(index), steps=1)
    assert len(method.kept) == 12
    images, labels = 12 * 3 * 32 * 32, 12 * 8
    assert method.kept.nbytes == images + labels
    classes = method.prompts.nbytes + method.ids.nbytes + method.tasks.nbytes
    counter = method.kept.offered.nbytes
    assert measured(method, backbone).stored == images + labels + classes + counter


def test_replay_keeps_what_fine_tuning_forgets(tiny_clip, tiny_task_data):
    """The claim, on two tasks: the first is answered better for it, the second is learned, too."""
    losses = {}
    for replay in (0.0, 1.0):
        model = copy.deepcopy(tiny_clip)
        method, _, later, driven, earlier = after_one_task(model, tiny_task_data, replay=replay)
        run_steps(method, later, driven, range(25))
        losses[replay] = [
            F.cross_entropy(
                method.model.logits(data.images, method.model.encode_text(data.prompts)),
                data.labels,
            ).item()
            for data in (earlier, later)
        ]
    assert losses[1.0][0] < losses[0.0][0] - 0.1
    assert losses[1.0][1] < losses[0.0][1] + 0.2


def test_refuses_an_empty_memory():
    with pytest.raises(
        ClbenchError, match="capacity=0: input should be greater than or equal to 1"
    ):
        ER(capacity=0)
