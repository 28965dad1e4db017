"""EWC: importance from the task's own loss, added up online, and a pull where it matters."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.importance import diagonal_fisher
from clbench.clip.merging import flatten
from clbench.core.errors import ClbenchError
from clbench.core.training import trained_parameters
from clbench.methods.ewc import EWC
from clbench.testing.driving import begin, end, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip


def prepared(model, **options):
    method = EWC(fisher_images=8, **options)
    method.prepare(model)
    return method


def fisher_of(method, task, data):
    weights = trained_parameters(method)
    loss = method._classification
    return flatten(diagonal_fisher(loss, weights, data, method.fisher_images, task.index))


def true_loss(model, data):
    logits = model.logits(data.images, model.encode_text(data.prompts))
    return F.cross_entropy(logits, data.labels).item()


def test_importance_fades_and_the_task_is_added(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, decay=0.25)
    run_task(method, *tiny_task_data(0), steps=2)
    first = method.importance.clone()
    task, data = tiny_task_data(1)
    run_steps(method, data, begin(method, task, data), range(2))
    own = fisher_of(method.eval(), task, data)
    end(method, task, data)
    torch.testing.assert_close(method.importance, 0.25 * first + own)
    assert own.sum() > 0


def test_penalty_weighs_each_entry_and_waits_for_the_second_task(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, strength=4.0)
    task, data = tiny_task_data(0)
    begin(method, task, data)
    assert method.loss(first_batch(data)).keys() == {"classification"}
    run_task(method, task, data, steps=2)
    task, data = tiny_task_data(1)
    driven = begin(method, task, data)
    start = flatten(trained_parameters(method))
    run_steps(method, data, driven, range(3))
    change = flatten(trained_parameters(method)) - start
    expected = 2.0 * (method.importance * change.square()).sum()
    torch.testing.assert_close(method.loss(first_batch(data))["distance"], expected)
    assert expected > 0


def test_what_mattered_stays_and_the_rest_is_free(tiny_clip, tiny_task_data):
    """The claim, on two tasks: the first is forgotten less, and the second learned as well."""
    (old_task, old), (task, data) = tiny_task_data(0), tiny_task_data(1)
    learned = prepared(tiny_clip)
    run_task(learned, old_task, old, steps=15, rate=3e-4)
    start = flatten(trained_parameters(learned))
    weighted, moved, losses = [], [], []
    for strength in (0.0, 3e4):
        method = prepared(make_clip(), strength=strength)
        method.load_state_dict(learned.state_dict())
        run_steps(method, data, begin(method, task, data, rate=3e-4), range(15))
        change = flatten(trained_parameters(method)) - start
        weighted.append((learned.importance * change.square()).sum().item())
        moved.append(change.norm().item())
        with torch.no_grad():
            losses.append([true_loss(method.model, images) for images in (old, data)])
    assert weighted[1] < 0.2 * weighted[0]
    assert moved[1] > 0.7 * moved[0]
    assert losses[1][0] < losses[0][0]
    assert losses[1][1] < losses[0][1] + 0.05


def test_refuses_a_decay_beyond_one():
    with pytest.raises(ClbenchError, match=r"decay=2.0: input should be less than or equal to 1"):
        EWC(decay=2.0)
