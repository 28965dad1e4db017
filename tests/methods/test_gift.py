"""GIFT: losses, importance and weights as released, and what distillation and pull hold."""

import pytest
import torch

from clbench.clip.losses import alignment, classification, distillation
from clbench.core.data import Batch, ReferencePairs
from clbench.core.training import rate_factor, trained_parameters
from clbench.methods.gift import GIFT, importance, stored_together
from clbench.testing.driving import begin, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden.distilling import give_tokens, numbered
from tests.golden.golden import TASK, build_clip, read


class Pairs:
    """The recorded pairs, batch after batch in one list."""

    def __init__(self, golden):
        self.golden = golden

    def reference_pairs(self, source, count, seed):
        tensors = self.golden.tensors
        images, labels = tensors["ref.images"].float(), tensors["ref.labels"]
        captions = numbered(len(tensors["ref.tokens"]))
        return ReferencePairs(images.flatten(0, 1), captions, labels.flatten(), "golden")


def test_losses_importance_and_weights_are_the_released_ones():
    golden = read("gift")
    hp, tensors = golden.metadata["hp"], golden.tensors
    base = {name: value.float() for name, value in golden.below("base.").items()}
    model = build_clip(golden.metadata["cfg"], base)
    give_tokens(model, tensors["ref.tokens"])
    method = GIFT(
        distillation=hp["distill"],
        temperature=hp["T"],
        alignment=hp["ita"],
        consolidation=hp["l2"],
        label_smoothing=hp["ls"],
        reference_batch=hp["ref_batch"],
    )
    method.prepare(model)
    method.begin_task(TASK, Pairs(golden))
    trained = trained_parameters(method)
    names = {id(p): name for name, p in model.network.named_parameters()}
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=hp["wd"], betas=(0.9, 0.999))
    batches = zip(tensors["images"].float(), tensors["labels"], strict=True)
    batches = [Batch(images, labels, tensors["tokens"]) for images, labels in batches]
    terms = []
    compared = 0
    for step in range(hp["iterations"] + 1):
        optimizer.param_groups[0]["lr"] = hp["lr"] * rate_factor(
            step, hp["warmup"], hp["iterations"]
        )
        optimizer.zero_grad()
        found = method.loss(batches[step % len(batches)])
        terms.append({key: value.item() for key, value in found.items()})
        torch.stack([*found.values()]).sum().backward()
        for weight in trained:
            expected = tensors.get(f"step{step}.total_grad.{names[id(weight)]}")
            if expected is not None:
                bound = 1e-3 * expected.abs().max().item()
                torch.testing.assert_close(weight.grad, expected, atol=bound, rtol=0)
                compared += 1
        optimizer.step()
    assert compared == 6
    series = golden.below("loss.")
    by_term = {
        "classification": series["ce_loss"],
        "distillation": series["image_distill_loss"] + series["text_distill_loss"],
        "alignment": series["image_ita_loss"] + series["text_ita_loss"],
        "consolidation": series["wc_loss"],
    }
    for key, expected in by_term.items():
        bound = 1e-5 if key == "consolidation" else 2e-4
        found = torch.tensor([step[key] for step in terms])
        torch.testing.assert_close(found, expected, atol=bound, rtol=0)
    state = model.export_state_dict()
    for name, weight in golden.below("after.").items():
        torch.testing.assert_close(state[name], weight, atol=5e-5, rtol=0)
    with torch.no_grad():
        logits = model.logits(batches[0].images, model.encode_text(tensors["tokens"]))
    torch.testing.assert_close(logits, tensors["logits"], atol=1e-3, rtol=0)


def test_importance_is_the_released_one_and_finite_without_a_gradient():
    (found,) = importance([torch.tensor([[3.0, 1.0], [0.0, 0.0]])])
    torch.testing.assert_close(found, torch.tensor([[1.2, 0.4 / 3], [0.0, 0.0]]) * 3)
    parts = importance([torch.tensor([3.0, 1.0]), torch.tensor([0.0, 0.0])])
    torch.testing.assert_close(torch.cat(parts), torch.tensor([3.6, 0.4, 0.0, 0.0]))
    assert importance([None])[0].item() == pytest.approx(1e-6)
    assert importance([torch.zeros(3)])[0].tolist() == [0.0, 0.0, 0.0]


def test_query_key_and_value_are_one_tensor_and_every_weight_is_in_one(tiny_clip):
    GIFT().prepare(tiny_clip)
    groups = stored_together(tiny_clip)
    trained = [p for p in tiny_clip.parameters() if p.requires_grad]
    assert sorted(id(w) for g in groups for w in g) == sorted(map(id, trained))
    blocks = len(tiny_clip.blocks("vision")) + len(tiny_clip.blocks("text"))
    assert sum(len(g) == 3 for g in groups) == 2 * blocks


def test_gradients_are_those_of_the_sum_of_all_terms(tiny_clip, tiny_task_data):
    """Those of the reference pairs are handed over, not computed a second time."""
    task, data = tiny_task_data(0)
    method = GIFT(reference_batch=8, consolidation=0.0)
    method.prepare(tiny_clip)
    driven = begin(method, task, data)
    run_steps(method, data, driven, range(2))
    position = method.pairs.position
    tiny_clip.zero_grad()
    torch.stack([*method.loss(first_batch(data)).values()]).sum().backward()
    found = [p.grad.clone() for p in trained_parameters(method)]

    tiny_clip.zero_grad()
    method.pairs.position = position
    pairs = method.pairs.take(8)
    captions = tiny_clip.encode_text(method.pairs.tokens[pairs.captions])[pairs.labels]
    z = tiny_clip.similarities(tiny_clip.encode_image(pairs.images), captions)
    whole = (
        classification(tiny_clip, first_batch(data))
        + distillation(pairs.teacher_logits, z, 2.0)
        + 0.25 * alignment(z, pairs.labels, 0.2)
    )
    whole.backward()
    for weight, gradient in zip(trained_parameters(method), found, strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-4)


def change(tiny_task_data, **options):
    method = GIFT(reference_batch=12, alignment=0.0, **options)
    method.prepare(make_clip())
    task, data = tiny_task_data(0)
    driven = begin(method, task, data)
    start, tokens = [w.clone() for w in method.start], method.pairs.tokens.clone()
    before = method.pairs.pairs["logits"].clone()
    images = method.pairs.pairs["images"].clone()
    run_steps(method, data, driven, range(12))
    with torch.no_grad():
        after = method.model.logits(images, method.model.encode_text(tokens))
    weights = zip(trained_parameters(method), start, strict=True)
    moved = sum((now.detach() - then).square().sum().item() for now, then in weights)
    return (after.log_softmax(1) - before.log_softmax(1)).abs().mean().item(), moved


def test_distillation_holds_answers_and_the_pull_holds_weights(tiny_task_data):
    free = change(tiny_task_data, distillation=0.0, consolidation=0.0)
    distilled = change(tiny_task_data, distillation=20.0, consolidation=0.0)
    pulled = change(tiny_task_data, distillation=20.0, consolidation=100.0)
    assert distilled[0] < 0.5 * free[0]
    assert pulled[1] < 0.7 * distilled[1]


def test_nothing_is_stored_and_pairs_are_counted(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    method = GIFT(reference="a/folder", reference_count=6)
    method.prepare(tiny_clip)
    run_task(method, task, data, steps=1)
    assert method.pairs.pairs == {}
    cost = method.footprint()
    assert (cost.stored, cost.added) == (0, 0)
    assert cost.external == 6 * 3 * 32 * 32 + sum(map(len, data.captions))
    method.reference = "task"
    run_task(method, task, data, steps=1)
    assert method.footprint().external == 0
