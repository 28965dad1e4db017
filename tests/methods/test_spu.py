"""SPU: the released runs, and entries that are not selected keep their bits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.losses import alignment
from clbench.clip.replay import ReplayedImages
from clbench.core.data import Batch
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan
from clbench.engine.training.modules import planned
from clbench.methods.spu import SPU, largest, output_gradients
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip, make_tasks
from tests.golden.distilling import chosen, give_tokens, numbered_task, opened
from tests.golden.subspaces import assert_near


class Recorded:
    """A golden task's images: their number, and the batches that were scored."""

    def __init__(self, own):
        self.own = own

    def __len__(self):
        return len(self.own["pool"])

    def batches(self, size, seed):
        # Further batches show whether too many are taken.
        rows = [*self.own["score_batches"], *self.own["batches"]]
        assert {len(row) for row in rows} == {size}
        return iter([batch_of(self.own, row) for row in rows])


def batch_of(own, rows):
    labels = own["pool_labels"][rows[rows >= 0]].long()
    return Batch(chosen(own["pool"], rows), labels, own["tokens"].long())


def test_reproduces_the_released_runs():
    golden, model = opened("spu")
    hp = golden.metadata["hp"]
    method = SPU(
        selected=hp["selection_rate"],
        scored=hp["score_batch_percentage"],
        score_batch=hp["batch"],
        replayed=hp["batch"],
        as_released=True,
    )
    method.prepare(model)
    parameters = dict(model.network.named_parameters())
    trained = [name for name, p in parameters.items() if p.requires_grad]
    assert sorted(trained) == sorted(hp["trained"])
    layers = [name for name in hp["trained"] if name.endswith("c_fc.weight")]
    layers.sort(key=lambda name: name.startswith("visual"))
    tasks = range(len(hp["classes"]))
    for index in tasks:
        own = golden.below(f"task{index}.")
        data, task = Recorded(own), replace(numbered_task(golden, index), count=hp["num_tasks"])
        give_tokens(model, own["tokens"])
        scored = [batch_of(own, rows) for rows in own["score_batches"]]
        scores = output_gradients(model, scored, again=True)
        for name, score in zip(layers, scores, strict=True):
            if (expected := own.get(f"score.{name}")) is not None:
                size = expected.abs().max()
                assert_near(score / size, expected / size, 1e-4)
        method.train()
        method.begin_task(task, data)
        for name, mask in zip(layers, method.masks, strict=True):
            assert torch.equal(mask, own[f"mask.{name}"].bool())
        train(method, hp, own)
        method.eval()
        for name, expected in golden.below(f"task{index}.after.").items():
            assert_near(parameters[name].detach(), expected, 1e-5)
        tokens = [golden.tensors[f"task{t}.tokens"] for t in tasks]
        with torch.no_grad():
            texts = model.encode_text(torch.cat(tokens).long())
            logits = model.logits(golden.tensors["probe_images"].float(), texts)
        assert_near(logits, own["probe_logits"], 5e-4)
        if index == 0:
            remember(method, own, golden.tensors["task1.buffer_batches"])


def remember(method, own, rows):
    """Let the memory give what the released one gave; its images are no whole numbers."""

    def sample(count, generator):
        row = rows[method.step]
        assert len(row) == count
        row = row[row >= 0]  # the released pass over the memory may end in a smaller batch
        return ReplayedImages(chosen(own["pool"], row), own["pool_labels"][row].long())

    method.kept.ids = own["pool_labels"].long()
    method.kept.sample = sample


def train(method, hp, own):
    settings = TrainSettings(
        batch_size=hp["batch"], weight_decay=hp["wd"], betas=tuple(hp["betas"])
    )
    optimizer, schedule = planned(method, TrainingPlan(len(own["batches"]), hp["lr"], settings))
    for step, rows in enumerate(own["batches"]):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(own["lr"][step].item())
        optimizer.zero_grad()
        loss = method.loss(batch_of(own, rows))["contrastive"]
        assert_near(loss.detach(), own["loss"][step], 1e-5)
        loss.backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
        schedule.step()


def weights_of(model):
    blocks = [*model.blocks("text"), *model.blocks("vision")]
    return [block.mlp.c_fc.weight for block in blocks]


def test_entries_that_are_not_selected_keep_their_bits(tiny_task_data):
    """The claim; in the release weight decay reaches them."""
    moved = {}
    for released in (False, True):
        method = SPU(selected=0.1, score_batch=8, replayed=4, as_released=released)
        method.prepare(make_clip())
        task, data = tiny_task_data(0)
        driven = begin(method, task, data)
        start = copy.deepcopy([w.detach() for w in weights_of(method.model)])
        run_steps(method, data, driven, range(6))
        moved[released] = [
            (now.detach() != then)[~mask].any().item()
            for now, then, mask in zip(weights_of(method.model), start, method.masks, strict=True)
        ]
        for now, then, mask in zip(weights_of(method.model), start, method.masks, strict=True):
            assert mask.sum() == int(0.1 * mask.numel())
            assert (now.detach() != then)[mask].any()
    assert not any(moved[False])
    assert all(moved[True])


def test_the_share_of_batches_that_is_scored(tiny_clip, tiny_task_data):
    """Of full batches, rounded up; the release takes one or two more, earlier ones again."""
    task, data = tiny_task_data(0)
    batches = list(data.batches(4, seed=3))
    for released, count in ((False, 2), (True, 3)):
        method = SPU(scored=0.25, score_batch=4, selected=0.2, as_released=released)
        method.prepare(make_clip())
        method.draws.seed = lambda: 3
        method.begin_task(task, data)
        scores = output_gradients(method.model, batches[:count], again=released)
        for mask, score in zip(method.masks, scores, strict=True):
            assert torch.equal(mask, largest(score, 0.2))
    plain = output_gradients(method.model, batches[:1])
    again = output_gradients(method.model, batches[:1] * 3, again=True)
    assert_near(again[0], 6 * plain[0], 1e-3 * plain[0].abs().max().item())


def test_old_images_are_replayed_with_their_own_prompts(tiny_task_data):
    method = SPU(score_batch=8, capacity=9, replayed=5)
    method.prepare(make_clip())
    run_task(method, *tiny_task_data(0), steps=1)
    kept = method.kept
    assert sorted(kept.ids.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ((_, first), (task, data)) = make_tasks(3, 4)
    method.begin_task(task, data)
    batch = first_batch(data)
    state = method.draws.get_extra_state()
    found = method.loss(batch)["contrastive"]
    method.draws.set_extra_state(state)
    old = kept.sample(5, method.draws.generator)
    model = method.model
    images = model.encode_image(torch.cat([batch.images, old.images]))
    texts = [model.encode_text(batch.prompts)[batch.labels]]
    texts.append(model.encode_text(first.prompts)[old.ids])
    logits = model.similarities(images, torch.cat(texts))
    diagonal = torch.arange(len(logits))
    expected = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
    assert_near(found, expected, 1e-4)


def test_equal_prompts_share_the_target_as_if_each_were_its_own():
    """With equal texts, the loss on the diagonal has the same value and the same gradients."""
    labels = torch.tensor([0, 1, 1, 2, 0])
    features = F.normalize(torch.randn(5, 6), dim=1)
    texts = F.normalize(torch.randn(3, 6), dim=1).requires_grad_()
    logits = 5 * features @ texts[labels].T
    diagonal = torch.arange(5)
    apart = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
    shared = alignment(logits, labels) / 2
    assert_near(shared, apart, 1e-6)
    (one,) = torch.autograd.grad(shared, texts, retain_graph=True)
    (other,) = torch.autograd.grad(apart, texts)
    assert_near(one, other, 1e-6)


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(SPU, {"score_batch": 8, "replayed": 6, "capacity": 12, "as_released": True})
