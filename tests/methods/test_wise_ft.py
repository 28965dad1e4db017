"""WiSE-FT: the released training and merges, towards either anchor."""

import copy

import pytest
import torch

from clbench.clip.merging import flatten
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts, Task
from clbench.core.training import trained_parameters
from clbench.methods.wise_ft import WiSEFT
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, end, run_steps, run_task
from clbench.testing.toys import make_tasks
from tests.golden.golden import TASK, build_clip, read, train_on_pool


@pytest.mark.parametrize(
    ("anchor", "prefix"), [("previous", ""), ("zero-shot", "zeroshot_anchor.")]
)
def test_reproduces_the_released_training_and_merges(anchor, prefix):
    golden = read("wise_ft")
    hp = golden.metadata["hp"]
    model = build_clip(golden.metadata["cfg"], golden.below("before."))
    method = WiSEFT(alpha=hp["alpha"], anchor=anchor, label_smoothing=hp["label_smoothing"])
    method.prepare(model)
    probes = golden.tensors["probe_images"].float()
    for task in range(2):
        losses = train_on_pool(method, golden, task)["classification"]
        recorded = golden.below(f"task{task}.{prefix}")
        torch.testing.assert_close(losses, recorded["loss_total"], atol=5e-5, rtol=0)
        method.end_task(TASK, None)
        weights = model.export_state_dict()
        expected = golden.below(f"task{task}.{prefix}after.")
        assert len(expected) == 4
        for name, weight in expected.items():
            torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=0)
        for asked in range(2):
            texts = model.encode_text(golden.tensors[f"task{asked}.tokens"].long())
            logits = recorded[f"probe_logits.task{asked}"]
            torch.testing.assert_close(model.logits(probes, texts), logits, atol=5e-4, rtol=0)


@pytest.mark.parametrize("alpha", ["0.0", "0.5", "1.0"])
def test_reproduces_the_original_with_a_linear_classifier(alpha):
    golden = read("wise_original_finetune")
    hp, tensors = golden.metadata["hp"], golden.tensors
    model = build_clip(golden.metadata["cfg"], golden.below("before."))
    tokens = {
        f"{c} {t}": row for c, rows in enumerate(tensors["tokens"]) for t, row in enumerate(rows)
    }
    model.tokenizer = lambda texts: torch.stack([tokens[text] for text in texts]).long()
    names = tuple(str(c) for c in range(len(tensors["tokens"])))
    templates = [f"{{}} {t}" for t in range(tensors["tokens"].shape[1])]
    task = Task("golden", ClassTexts.from_templates(names, templates))
    method = WiSEFT(
        alpha=float(alpha),
        anchor="zero-shot",
        classifier="linear",
        label_smoothing=hp["label_smoothing"],
    )
    method.prepare(model)
    method.begin_task(task, None)
    head = golden.below("head_initial.")
    torch.testing.assert_close(method.head.weight.data, head["weight"], atol=1e-5, rtol=0)
    torch.testing.assert_close(method.head.bias.data, head["bias"])

    trained = trained_parameters(method)
    optimizer = torch.optim.AdamW(trained, weight_decay=hp["weight_decay"])
    for step, (rate, rows) in enumerate(zip(tensors["lr"], tensors["batches"], strict=True)):
        optimizer.param_groups[0]["lr"] = rate.item()
        optimizer.zero_grad()
        batch = Batch(tensors["pool"][rows].float(), tensors["pool_labels"][rows], None)
        loss = method.loss(batch)["classification"]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, hp["clip_norm"])
        optimizer.step()
        torch.testing.assert_close(loss, tensors["losses"][step], atol=5e-5, rtol=0)
        expected = tensors["grad_norm_before_clip"][step]
        torch.testing.assert_close(norm, expected, atol=1e-3, rtol=1e-4)
    weights = {**model.export_state_dict(), **method.head.state_dict(prefix="head.")}
    finetuned = golden.below("finetuned.")
    assert len(finetuned) == 5
    for name, weight in finetuned.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=0)

    method.end_task(task, None)
    probes = tensors["probe_images"].float()
    logits = method.classify(probes, task.classes)
    expected = tensors[f"alpha{alpha}.probe_logits"]
    torch.testing.assert_close(logits, expected, atol=5e-4, rtol=0)


@pytest.mark.slow
def test_keeps_the_contract_with_a_linear_classifier():
    check_method(WiSEFT, {"classifier": "linear", "anchor": "zero-shot"})


def test_a_linear_classifier_answers_for_learned_classes_only(tiny_clip):
    (first, data), (second, _) = make_tasks(3, 3)
    method = WiSEFT(classifier="linear", alpha=1.0)
    method.prepare(tiny_clip)
    before = tiny_clip.export_state_dict()
    run_task(method, first, data, steps=3)
    with torch.no_grad():
        images = next(data.batches(4)).images
        both = method.classify(images, second.classes + first.classes)
        unseen = tiny_clip.logits(images, tiny_clip.class_features(second.classes))
        features = tiny_clip.encode_image(images)
    learned = features @ method.head.rows.T + method.head.offsets
    torch.testing.assert_close(both, torch.cat([unseen, learned], dim=1))
    assert not torch.equal(method.head.offsets, torch.zeros(len(first.classes)))
    for name, weight in tiny_clip.export_state_dict().items():
        moved = not torch.equal(weight, before[name])
        assert moved <= name.startswith("visual."), name


@pytest.mark.parametrize(("anchor", "start"), [("previous", 1), ("zero-shot", 0)])
def test_goes_back_to_its_anchor(tiny_clip, tiny_task_data, anchor, start):
    method = WiSEFT(alpha=0.0, anchor=anchor)
    method.prepare(tiny_clip)
    method.alpha = 0.5
    starts = [flatten(tiny_clip.parameters())]
    run_task(method, *tiny_task_data(0), steps=3)
    starts.append(flatten(tiny_clip.parameters()))
    task, data = tiny_task_data(1)
    run_steps(method, data, begin(method, task, data), range(3))
    trained = flatten(tiny_clip.parameters())
    end(method, task, data)
    expected = (starts[start] + trained) / 2
    torch.testing.assert_close(flatten(tiny_clip.parameters()), expected)
    assert not torch.equal(starts[0], starts[1])


def test_fisher_keeps_what_only_the_anchor_needs(tiny_clip, tiny_task_data):
    """Weights without any gradient are averaged; the others by their share of importance."""
    task, data = tiny_task_data(0)
    method = WiSEFT(alpha=0.5, fisher=6)
    method.prepare(tiny_clip)
    run_steps(method, data, begin(method, task, data), range(3))
    before, importance = method.before, method.importance
    after = flatten(p for p in tiny_clip.parameters() if p.requires_grad)
    own = method._importance(task, data)
    end(method, task, data)
    merged = flatten(p for p in tiny_clip.parameters() if p.requires_grad)
    old, new = importance.clamp(min=1e-8), own.clamp(min=1e-8)
    torch.testing.assert_close(merged, (old * before + new * after) / (old + new))
    unused = (importance == 0) & (own == 0)
    assert unused.any()
    torch.testing.assert_close(merged[unused], ((before + after) / 2)[unused])
    assert not torch.allclose(merged, (before + after) / 2, atol=1e-4)


def test_half_way_back_changes_less_elsewhere_and_has_learned(tiny_clip, tiny_task_data):
    """The claim: between both models there is one that knows the task and strays less."""
    (task, data), (_, other) = tiny_task_data(0), tiny_task_data(5)
    strayed, losses = [], []
    for alpha in (0.0, 0.5, 1.0):
        model = copy.deepcopy(tiny_clip)
        method = WiSEFT(alpha=alpha)
        method.prepare(model)
        run_task(method, task, data, steps=10, rate=3e-4)
        with torch.no_grad():
            losses.append(method.loss(next(data.batches(24)))["classification"].item())
            drift = model.encode_image(other.images) - tiny_clip.encode_image(other.images)
        strayed.append(drift.norm().item())
    assert strayed[0] < strayed[1] < 0.9 * strayed[2]
    assert losses[1] < losses[0] - 0.1


def test_stores_the_initial_model_only_as_its_anchor(tiny_clip):
    sizes = {}
    for anchor in ("previous", "zero-shot"):
        method = WiSEFT(anchor=anchor)
        method.prepare(copy.deepcopy(tiny_clip))
        sizes[anchor] = sum(buffer.nbytes for buffer in method.buffers(recurse=False))
    trained = sum(p.nbytes for p in tiny_clip.parameters() if p.ndim)
    assert sizes == {"previous": 0, "zero-shot": trained}


def test_refuses_more_than_the_whole_way():
    with pytest.raises(ClbenchError, match=r"alpha=1.5: input should be less than or equal to 1"):
        WiSEFT(alpha=1.5)
