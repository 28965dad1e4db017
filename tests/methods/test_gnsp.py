"""GNSP: memories and projections as released, and an exact variant."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.methods.gnsp import GNSP
from clbench.testing.driving import begin, end, first_batch, run_steps, run_task, trained_names
from tests.golden.golden import TASK, build_clip, read
from tests.golden.subspaces import assert_near_in_norm

_BLOCKS = [f"model.network.visual.transformer.resblocks.{b}.mlp" for b in range(2)]
PROTECTED = {"model.network.visual.proj"} | {
    f"{block}.{layer}.weight" for block in _BLOCKS for layer in ("c_fc", "c_proj")
}


class Batches:
    """A training set that is given batch by batch."""

    def __init__(self, images):
        self.images = images

    def batches(self, batch_size):
        nothing = torch.empty(0, dtype=torch.int64)
        return (Batch(images, nothing, nothing) for images in self.images)


def prepared(model, **options):
    method = GNSP(reference_batch=8, **options)
    method.prepare(model)
    return method


def test_memories_and_projections_are_the_released_ones():
    golden = read("gnsp")
    method = GNSP(rho=golden.metadata["rho"])
    method.prepare(build_clip(golden.metadata["cfg"], golden.below("model.")))
    where = {"visual.transformer.resblocks.1.mlp.c_fc.weight": 2, "visual.proj": 4}
    assert golden.below("grad.").keys() == where.keys()

    for task in range(2):
        method.end_task(TASK, Batches(golden.tensors[f"task{task}.images"]))
        for name, i in where.items():
            gram = golden.tensors[f"task{task}.gram.{name}"]
            assert_near_in_norm(method.memories[i].gram, gram, 1e-4)
    for name, i in where.items():
        first_null, size = golden.metadata["ranks"][name]
        split = method.memories[i].split()
        assert (split.kept.shape, split.null.shape) == (
            (size, first_null),
            (size, size - first_null),
        )
        method.weights[i].grad = golden.tensors[f"grad.{name}"].clone()
    method.after_backward()
    for name, i in where.items():
        projected = golden.tensors[f"grad_projected.{name}"]
        assert_near_in_norm(method.weights[i].grad, projected, 1e-4)


def test_memory_of_the_output_projection_fades_and_the_others_do_not(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip)
    sums = [[] for _ in method.memories]
    for index in range(3):
        before = [memory.gram.clone() for memory in method.memories]
        method.end_task(*tiny_task_data(index))
        *plain, faded = range(len(before))
        for i in plain:
            sums[i].append((method.memories[i].gram - before[i]).norm().item())
        if index:
            before[faded] /= before[faded].norm()
        sums[faded].append((method.memories[faded].gram - before[faded]).norm().item())
    assert all(norm == pytest.approx(1, abs=1e-4) for norms in sums for norm in norms)


def test_first_task_trains_all_and_later_ones_the_protected_weights(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip)
    everything = {f"model.{n}" for n, _ in tiny_clip.named_parameters()}
    method.begin_task(*tiny_task_data(0))
    assert trained_names(method) == everything - {"model.network.logit_scale"}
    method.end_task(*tiny_task_data(0))
    method.begin_task(*tiny_task_data(1))
    assert trained_names(method) == PROTECTED


@pytest.mark.parametrize("projection", ["gradient", "update"])
def test_only_the_projected_update_spares_kept_features(tiny_clip, tiny_task_data, projection):
    method = prepared(tiny_clip, projection=projection)
    run_task(method, *tiny_task_data(0), steps=3)
    task, data = tiny_task_data(1)
    driven = begin(method, task, data, rate=1e-2)
    before = [weight.detach().clone() for weight in method.weights]
    run_steps(method, data, driven, range(3))

    moved = []
    for i, (memory, start) in enumerate(zip(method.memories, before, strict=True)):
        change = method.weights[i].detach() - start
        rows = change.T if i == len(before) - 1 else change  # outputs x features
        kept = memory.split().kept
        assert 0 < kept.shape[1] < len(kept)
        moved.append(((rows @ kept).norm() / rows.norm()).item())
    if projection == "update":
        assert max(moved) < 1e-5
    else:
        assert min(moved) > 1e-3


def test_without_projection_nothing_is_remembered_and_the_same_weights_train(
    tiny_clip, tiny_task_data
):
    task, data = tiny_task_data(1)
    method = prepared(tiny_clip, projection="none")
    run_task(method, *tiny_task_data(0), steps=1)
    driven = begin(method, task, data)
    assert method.footprint().stored == sum(p.nbytes for p in method.pairs.teacher.parameters())
    assert trained_names(method) == PROTECTED
    torch.stack(list(method.loss(first_batch(data)).values())).sum().backward()
    raw = [weight.grad.clone() for weight in method.weights]
    method.after_backward()
    assert all(torch.equal(w.grad, g) for w, g in zip(method.weights, raw, strict=True))
    run_steps(method, data, driven, range(2))
    end(method, task, data)


def test_without_losses_on_pairs_there_are_neither_pairs_nor_teacher(
    tiny_clip, tiny_task_data, monkeypatch
):
    task, data = tiny_task_data(0)
    monkeypatch.setattr(data, "reference_pairs", lambda *_: pytest.fail("pairs were drawn"))
    method = prepared(tiny_clip, distillation=0.0, alignment=0.0)
    begin(method, task, data)
    terms = method.loss(first_batch(data))
    batch = first_batch(data)
    logits = tiny_clip.logits(batch.images, tiny_clip.encode_text(batch.prompts))
    expected = F.cross_entropy(logits, batch.labels, label_smoothing=0.2)
    torch.testing.assert_close(terms, {"classification": expected})
    end(method, task, data)
    assert method.footprint().stored == 4 * (2 * (64**2 + 256**2) + 64**2)
    assert method.footprint().external == 0


def test_gradients_are_projected_before_the_optimizer(tiny_clip, tiny_task_data):
    method = prepared(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=1)
    task, data = tiny_task_data(1)
    begin(method, task, data)
    torch.stack(list(method.loss(first_batch(data)).values())).sum().backward()
    method.after_backward()
    for weight, memory in zip(method.weights[:-1], method.memories, strict=False):
        assert (weight.grad @ memory.split().kept).norm() < 1e-5 * weight.grad.norm()


def test_loss_terms_follow_the_equations(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0, size=8)
    method = prepared(tiny_clip, distillation=2.0, alignment=0.5)
    driven = begin(method, task, data)
    run_steps(method, data, driven, range(2))  # so that teacher and student differ
    method.pairs.scored.position = 0
    chosen = method.pairs.take(8)
    method.pairs.scored.position = 0
    terms = method.loss(first_batch(data))

    def similarities(model):
        tokens = method.pairs.tokens[chosen.captions]
        texts = model.encode_text(tokens)[chosen.labels]
        return model.logit_scale.exp() * model.encode_image(chosen.images) @ texts.T

    student, teacher = similarities(tiny_clip), similarities(method.pairs.teacher)
    distilled = sum(
        -4 * ((t / 2).softmax(1) * (s / 2).log_softmax(1)).sum(1).mean()
        for t, s in ((teacher, student), (teacher.T, student.T))
    )
    same = (chosen.labels[:, None] == chosen.labels).float()
    targets = 0.8 * same / same.sum(1, keepdim=True) + 0.2 / 8
    aligned = sum(-(targets * z.log_softmax(1)).sum(1).mean() for z in (student, student.T))
    torch.testing.assert_close(terms["distillation"], 2.0 * distilled)
    torch.testing.assert_close(terms["alignment"], 0.5 * aligned)
    logits = tiny_clip.logits(first_batch(data).images, tiny_clip.encode_text(data.prompts))
    expected = F.cross_entropy(logits, first_batch(data).labels, label_smoothing=0.2)
    torch.testing.assert_close(terms["classification"], expected)


def test_teacher_is_the_first_model_for_ever(tiny_clip, tiny_task_data):
    images = tiny_task_data(0)[1].images
    expected = tiny_clip.encode_image(images)
    method = prepared(tiny_clip)
    for index in range(2):
        run_task(method, *tiny_task_data(index), steps=3)
    torch.testing.assert_close(method.pairs.teacher.encode_image(images), expected)
    assert not torch.allclose(tiny_clip.encode_image(images), expected, atol=1e-3)


def test_each_task_draws_other_pairs_and_keeps_none(tiny_clip, tiny_task_data, monkeypatch):
    method = prepared(tiny_clip, reference="benchmark", reference_count=6)
    task, data = tiny_task_data(0)
    asked, draw = [], data.reference_pairs

    def noting(source, count, seed):
        asked.append((source, count))
        return draw(source, count, seed)

    monkeypatch.setattr(data, "reference_pairs", noting)
    seen = []
    for _ in range(2):
        driven = begin(method, task, data)
        seen.append(method.pairs.scored.pairs["images"].clone())
        run_steps(method, data, driven, range(1))
        end(method, task, data)
        assert method.pairs.scored.pairs == {}
    assert asked == [("benchmark", 6), ("benchmark", 6)]
    assert not torch.equal(*seen)


def test_which_pairs_are_drawn_depends_on_the_seed_of_the_run_alone(tiny_clip, tiny_task_data):
    """So that the spread over seeds covers them."""
    task, data = tiny_task_data(0)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        method = prepared(tiny_clip, reference="benchmark", reference_count=6)
        begin(method, task, data)
        drawn.append(method.pairs.scored.pairs["images"].clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_footprint_counts_teacher_memories_and_external_images(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    backbone = sum(p.nbytes for p in tiny_clip.parameters())
    method = prepared(tiny_clip, reference="folder/of/images", reference_count=6)
    run_task(method, task, data, steps=1)
    memories = 4 * (2 * (64**2 + 256**2) + 64**2)
    cost = method.footprint()
    assert cost.stored == backbone + memories
    assert cost.external == 6 * 3 * 32 * 32 + sum(len(caption) for caption in data.captions)

    method.reference = "task"
    run_task(method, task, data, steps=1)
    assert method.footprint().external == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.0}, "rho=0.0: input should be greater than 0"),
        ({"projection": "weights"}, "input should be 'gradient', 'update' or 'none'"),
        ({"temperature": 0.0}, "temperature=0.0: input should be greater than 0"),
        ({"alignment": -1.0}, "alignment=-1.0: input should be greater than or equal to 0"),
        ({"reference_batch": 0}, "reference_batch=0: input should be greater than or equal to 1"),
    ],
)
def test_refuses_impossible_values(arguments, message):
    with pytest.raises(ClbenchError, match=message):
        GNSP(**arguments)
