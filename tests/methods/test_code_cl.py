"""CODE-CL: the released algebra and layers, soft protection, and maps of single tasks."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from clbench.clip.adapters.transfer import Transfer, TransferLinear
from clbench.clip.subspaces import conceptors
from clbench.clip.subspaces.conceptors import ConceptorMemory, conceptor, floored, leading
from clbench.methods.code_cl import CODECL, FLOOR, WIDER_THAN
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task, scores
from tests.golden.golden import read
from tests.golden.subspaces import assert_near, projector


def test_reproduces_the_released_algebra():
    golden = read("codecl")
    op, hp = golden.below("op."), golden.metadata["hp"]
    aperture = hp["apertures"][0]
    c, b = (conceptor(op[x], aperture) for x in ("X0", "X1"))
    assert_near(c, op["C"], 1e-9)
    assert_near(b, op["B"], 1e-9)
    assert_near(conceptors.complement(c), op["not"], 1e-9)
    assert_near(conceptors.both(c, b), op["and"], 1e-9)
    assert_near(conceptors.either(c, b), op["or"], 1e-9)
    assert_near(conceptors.both(op["Cd"], op["Bd"]), op["and_deficient"], 1e-9)
    assert_near(conceptors.either(op["Cd"], op["Bd"]), op["or_deficient"], 1e-9)
    assert conceptors.capacity(c) == pytest.approx(op["capacity"].item(), abs=1e-9)
    wider = conceptor(op["X0"], aperture, just_above(c, op["X0"]), gain=1.1)
    assert_near(wider, op["aperture"], 1e-9)


def just_above(c, x):
    """A threshold that a conceptor misses by a little: the aperture takes one step."""
    return ((c @ x).norm(dim=0).sum() / x.norm(dim=0).sum()).item() + 1e-6


def test_reproduces_the_released_layers():
    golden = read("codecl")
    hp = golden.metadata["hp"]
    mapped = 0
    for i, aperture in enumerate(hp["apertures"]):
        layer = layer_of(golden.tensors[f"weight0.{i}"])
        memory = ConceptorMemory().double()
        for task in range(hp["tasks"]):
            recorded = golden.below(f"task{task}.")
            x, target = recorded[f"x.{i}"], recorded[f"target.{i}"]
            new = conceptor(x.T, aperture, hp["memory_threshold"], hp["gain"])
            if task:
                common, share = memory.shared(floored(new, FLOOR))
                assert share == pytest.approx(recorded[f"similarity.{i}"].item(), abs=1e-9)
                has_map = share > hp["sim_threshold"] and x.shape[1] > WIDER_THAN
                assert has_map == (f"transfer.{i}.U" in recorded)
                if has_map:
                    basis, given = recorded[f"transfer.{i}.U"], recorded[f"transfer.{i}.S"]
                    found = leading(common, hp["free"])
                    assert_near(projector(found), projector(basis), 1e-9)
                    layer.transfer.start(task, basis, given)
                    mapped += 1
            output = layer(x)
            assert_near(output[:10].detach(), recorded[f"output.{i}"], 1e-9)
            loss = (output - target).square().sum(dim=1).mean()
            (gradient,) = torch.autograd.grad(loss, layer.base.weight)
            assert_near(gradient, recorded[f"grad.{i}"], 1e-9)
            gradient = memory.outside(gradient)
            assert_near(gradient, recorded[f"grad_projected.{i}"], 1e-9)
            layer.base.weight.data.sub_(hp["lr"] * gradient)
            assert_near(layer.base.weight.detach(), recorded[f"weight.{i}"], 1e-9)
            layer.transfer.keep()
            memory.extend(new, hp["lower_bound"])
            assert_near(memory.conceptor, recorded[f"conceptor.{i}"], 1e-9)
    assert mapped


def layer_of(weight):
    linear = nn.Linear(weight.shape[1], len(weight), bias=False, dtype=weight.dtype)
    linear.weight.data.copy_(weight)
    return TransferLinear(linear, Transfer(weight.shape[1]).double())


def prepared(clip, **params):
    method = CODECL(**params)
    method.prepare(clip)
    return method


def second(tiny_task_data, index=1):
    """A task as the second of two."""
    task, data = tiny_task_data(index)
    return replace(task, index=1, count=2, classes=numbered(task.classes, 10)), data


def numbered(classes, first):
    return replace(classes, ids=tuple(range(first, first + len(classes))))


def changes(clip, tiny_task_data, **params):
    """Per weight: the memory's conceptor, and the change over a second task."""
    method = prepared(clip, transfer=False, aperture=50.0, **params)
    run_task(method, *tiny_task_data(0), steps=6)
    before = [weight.detach().clone() for weight, _ in method._weights()]
    task, data = second(tiny_task_data)
    run_steps(method, data, begin(method, task, data), range(5))
    for (weight, memory), start in zip(method._weights(), before, strict=True):
        yield memory.conceptor, weight.detach() - start


def leak(changed):
    """Share of the change along directions that the memory holds by more than 99 %."""
    values, vectors = torch.linalg.eigh(changed[0])
    used = vectors[:, values > 0.99]
    assert 0 < used.shape[1] < len(used)
    return ((changed[1] @ used).norm() / changed[1].norm()).item()


def test_used_directions_are_protected_softly(tiny_clip, tiny_task_data):
    """The claim, for Adam: the change along a direction is what the conceptor leaves of it."""
    leaks = [leak(pair) for pair in changes(copy.deepcopy(tiny_clip), tiny_task_data)]
    gradient = [leak(p) for p in changes(tiny_clip, tiny_task_data, projection="gradient")]
    assert max(leaks) < 0.05
    assert all(5 * own < other for own, other in zip(leaks, gradient, strict=True))


def test_first_task_is_free(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip)
    before = [weight.detach().clone() for weight, _ in method._weights()]
    run_steps(method, tiny_task_data(0)[1], begin(method, *tiny_task_data(0)), range(2))
    for (weight, memory), start in zip(method._weights(), before, strict=True):
        assert not len(memory.conceptor)
        assert (weight - start).norm() > 0


def test_memory_never_forgets(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, transfer=False)
    run_task(method, *tiny_task_data(0), steps=2)
    before = [memory.conceptor.clone() for memory in method.memories]
    run_task(method, *second(tiny_task_data), steps=2)
    for memory, then in zip(method.memories, before, strict=True):
        now = memory.conceptor
        assert conceptors.capacity(now) > conceptors.capacity(then)
        values, vectors = torch.linalg.eigh(then)
        used = vectors[:, values > 0.5]
        assert (used.T @ now @ used).diagonal().min() > 0.45


def test_shared_inputs_get_maps_that_change_nothing_at_first(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, similarity=0.05, free=4)
    run_task(method, *tiny_task_data(0), steps=2)
    task, data = second(tiny_task_data)
    before = scores(method, data.images, task.classes)
    begin(method, task, data)
    maps = [part.transfer.trained for part in method.inputs]
    assert any(len(trained) for trained in maps)
    for trained in maps:
        assert not len(trained) or torch.equal(trained.detach(), torch.eye(4))
    assert_near(scores(method, data.images, task.classes), before, 1e-4)


def test_random_maps_change_the_start_as_released(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, similarity=0.05, free=4, as_released=True)
    run_task(method, *tiny_task_data(0), steps=2)
    task, data = second(tiny_task_data)
    before = scores(method, data.images, task.classes)
    begin(method, task, data)
    assert (scores(method, data.images, task.classes) - before).abs().max() > 1e-2


def test_no_maps_where_little_is_shared(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, similarity=2.0)
    run_task(method, *tiny_task_data(0), steps=2)
    run_task(method, *second(tiny_task_data), steps=2)
    assert not any(len(part.transfer.tasks) for part in method.inputs)


def test_classes_are_scored_with_the_maps_of_their_own_task(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip, similarity=0.05, free=4)
    (first, data), (later, other) = tiny_task_data(0), second(tiny_task_data)
    unseen = numbered(tiny_task_data(2)[0].classes, 20)
    run_task(method, first, data, steps=2)
    run_task(method, later, other, steps=2)
    candidates = unseen + later.classes + first.classes
    before = scores(method, data.images, candidates)
    for part in method.inputs:
        part.transfer.maps += torch.randn(part.transfer.maps.shape)
    after = scores(method, data.images, candidates)
    own = slice(len(unseen), len(unseen) + len(later.classes))
    assert (after[:, own] - before[:, own]).abs().max() > 1e-2
    kept = torch.ones(len(candidates), dtype=torch.bool)
    kept[own] = False
    assert torch.equal(after[:, kept], before[:, kept])
    assert_near(scores(method, data.images, later.classes), after[:, own], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {"similarity": 0.01, "free": 4, "as_released": True, "projection": "gradient"},
        {"transfer": False},
    ],
    ids=["as released", "without maps"],
)
def test_keeps_the_contract(params):
    check_method(CODECL, params)
