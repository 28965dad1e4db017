"""MG-CLIP: the released visual classifier, fusion and stop rule; passes that end in time."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.task import ClassTexts
from clbench.core.training import trained_parameters
from clbench.methods.mg_clip import (
    MGCLIP,
    class_means,
    cosines,
    drifted,
    fused,
    trained_rows,
    wrong_logit,
)
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_clip, make_tasks
from tests.golden.golden import read
from tests.golden.subspaces import assert_near


@pytest.fixture(scope="module")
def golden():
    return read("mgclip")


def test_visual_classifier_and_fusion_are_the_released_ones(golden):
    hp = golden.metadata["hp"]
    rows = torch.zeros(0, hp["dim"])
    for task, count in enumerate(hp["classes"]):
        own = golden.below(f"task{task}.")
        first = len(rows)
        features = F.normalize(own["features"], dim=1)
        labels = own["labels"] - first
        means = class_means(features, labels, count)
        assert_near(means, own["means"], 1e-6)
        order = torch.arange(len(labels)).split(hp["batch"])
        new = trained_rows(means, features, labels, [*order] * hp["epochs"], hp["lr"])
        rows = torch.cat([rows, new])
        assert_near(rows, own["weight"], 1e-6)
        assert (new - means).abs().max() > 1e-4

        probe = F.normalize(own["probe"], dim=1)
        texts = golden.tensors["text_features"][: len(rows)]
        text = (hp["scale"] * probe @ texts.T).softmax(dim=1).softmax(dim=1)
        vision = cosines(probe, rows).softmax(dim=1)
        assert_near(text, own["p_text"], 1e-5)
        assert_near(vision, own["p_vis"], 1e-6)
        answer = fused(text, vision, hp["b"] / hp["a"])
        assert_near(answer, own["fused"], 1e-5)
        assert torch.equal(answer.argmax(dim=1), own["prediction"])


@pytest.mark.parametrize("as_released", [True, False])
def test_the_method_answers_as_released(golden, as_released, tiny_clip):
    """Its classify, with the golden features and texts in place of the model's."""
    hp, tensors = golden.metadata["hp"], golden.tensors
    method = MGCLIP(visual_weight=hp["b"] / hp["a"], as_released=as_released)
    method.prepare(tiny_clip)
    last = golden.below(f"task{len(hp['classes']) - 1}.")
    method.rows, method.ids = last["weight"], torch.arange(len(last["weight"]))
    tiny_clip.encode_image = lambda images: F.normalize(images, dim=1)
    tiny_clip.class_features = lambda classes: tensors["text_features"][list(classes.ids)]
    tiny_clip.similarities = lambda features, texts: hp["scale"] * features @ texts.T
    order = torch.randperm(len(method.ids)).tolist()
    found = scores(method, last["probe"], some_classes(order))
    text = (hp["scale"] * F.normalize(last["probe"], dim=1) @ tensors["text_features"].T).softmax(1)
    once = fused(text, last["p_vis"], hp["b"] / hp["a"])
    assert_near(found, (last["fused"] if as_released else once)[:, order], 1e-5)


def some_classes(ids):
    names = tuple(f"class {number}" for number in ids)
    return ClassTexts(names, tuple((name,) for name in names), tuple(ids))


def test_the_stop_rule_is_the_released_one(golden, tiny_clip, tiny_task_data):
    """The mean logit of wrong classes, and after how many passes it has moved too far."""
    tensors = golden.tensors
    sizes = tensors["stop.batch_sizes"].tolist()
    task, data = tiny_task_data(0)
    seen = set()
    for case, expected in enumerate(tensors["stop.epochs"].tolist()):
        levels = []
        for logits in tensors["stop.logits"][case]:
            parts = zip(logits.split(sizes), tensors["stop.labels"].split(sizes), strict=True)
            means = [wrong_logit(part, labels) for part, labels in parts]
            levels.append(float(torch.stack(means).mean()))
        assert_near(torch.tensor(levels), tensors["stop.negative_mean"][case], 1e-4)
        method = MGCLIP(as_released=True)
        method.prepare(make_clip())
        given = iter(levels)
        method._wrong_logit = lambda given=given: next(given)
        begin(method, task, data)
        method.pass_steps = 1
        for _ in levels[1:]:
            method.after_step()
        assert method.passes == max(expected, 0)
        assert method.stopped == (expected != -1)
        seen.add(expected)
    assert len(seen) > 1


def test_a_negative_level_stops_unless_as_released():
    assert drifted(-10.0, -12.0, 0.1)
    assert not drifted(-10.0, -12.0, 0.1, signed=True)
    assert not drifted(-10.0, -10.5, 0.1)
    assert drifted(10.0, 12.0, 0.1, signed=True)
    assert not drifted(0.0, 1.0, 0.1)


def test_wrong_logits_of_all_images_count_alike_unless_as_released(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    with torch.no_grad():
        logits = tiny_clip.logits(data.images, tiny_clip.text_features(data.prompts))
    expected = wrong_logit(logits, data.labels).item()
    pieces = [wrong_logit(logits[rows], data.labels[rows]) for rows in (slice(20), slice(20, 24))]
    data.batches = lambda _, whole=data.batches: whole(20)
    for as_released, level in ((False, expected), (True, float(sum(pieces) / 2))):
        method = MGCLIP(as_released=as_released)
        method.prepare(make_clip())
        begin(method, task, data)
        assert method.level == pytest.approx(level, rel=1e-5)


def levels_of(method, *levels):
    given = iter(levels)
    method._wrong_logit = lambda: next(given)


@pytest.mark.parametrize(
    ("levels", "passes"),
    [
        ((10.0, 10.5, 10.9, 12.0), 2),
        ((10.0, 10.5, 8.0), 1),
        ((10.0, 12.0), 1),
        ((10.0, *[10.5] * 8), 0),
    ],
)
def test_tasks_end_where_the_gap_would_move_too_far(levels, passes):
    """The first task as it was a pass earlier; later ones after as many, of a step each."""
    first, second = make_tasks(3, 4)
    method = MGCLIP()
    method.prepare(make_clip())
    levels_of(method, *levels)
    driven = begin(method, *first, steps=8)
    assert method.pass_steps == 1
    after = []
    for step in range(8):
        run_steps(method, first[1], driven, range(step, step + 1))
        after.append([p.detach().clone() for p in trained_parameters(method)])
    assert method.passes == passes
    limit = passes or 8
    assert all(map(torch.equal, after[-1], after[limit - 1]))
    end(method, *first)

    driven = begin(method, *second, steps=8)
    run_steps(method, second[1], driven, range(limit))
    learned = [p.detach().clone() for p in trained_parameters(method)]
    assert not torch.equal(learned[0], after[-1][0])
    run_steps(method, second[1], driven, range(limit, 8))
    assert all(map(torch.equal, learned, trained_parameters(method)))


def test_the_gap_stays_where_it_is_watched(tiny_task_data):
    """The claim: what training moves less is the logit of wrong classes."""
    task, data = tiny_task_data(0)
    moved = {}
    for drift in (None, 0.05):
        method = MGCLIP(drift=drift)
        method.prepare(make_clip())
        driven = begin(method, task, data, steps=40, rate=2e-3)
        start = method._wrong_logit()
        run_steps(method, data, driven, range(40))
        moved[drift] = abs(method._wrong_logit() - start)
    assert moved[0.05] < 0.5 * moved[None]


def test_one_update_goes_on_from_task_to_task(tiny_clip, tiny_task_data):
    method = MGCLIP(drift=None)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=3)
    before = [adapter.up.detach().clone() for adapter in method.adapters.values()]
    assert all(up.norm() > 0 for up in before)
    begin(method, *tiny_task_data(1))
    assert all(map(torch.equal, before, (a.up for a in method.adapters.values())))
    assert {name.rpartition(".")[2] for name in method.adapters} == {"k_proj", "v_proj"}


def test_candidates_not_learned_keep_what_clip_gives_them(tiny_clip):
    (first, data), (second, _) = make_tasks(3, 4)
    method = MGCLIP()
    method.prepare(tiny_clip)
    run_task(method, first, data, steps=2)
    both = second.classes + first.classes
    with torch.no_grad():
        clip = tiny_clip.logits(data.images, tiny_clip.class_features(both)).softmax(dim=1)
    found = scores(method, data.images, both)
    assert_near(found[:, :4], clip[:, :4], 1e-6)
    assert_near(found.sum(dim=1), torch.ones(len(found)), 1e-5)
    assert not torch.allclose(found[:, 4:], clip[:, 4:], atol=1e-3)


def test_the_visual_classifier_finds_what_the_texts_do_not(tiny_task_data):
    method = MGCLIP(visual_weight=1e6)
    method.prepare(make_clip())
    task, data = tiny_task_data(0)
    run_task(method, task, data, steps=1, rate=0.0)
    right = (scores(method, data.images, task.classes).argmax(dim=1) == data.labels).float()
    assert right.mean() == 1.0
    method.visual_weight = 0.0
    right = (scores(method, data.images, task.classes).argmax(dim=1) == data.labels).float()
    assert right.mean() < 0.8


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(MGCLIP, {"as_released": True})
