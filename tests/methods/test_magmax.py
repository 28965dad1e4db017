"""MagMax: merges of deltas to zero-shot CLIP, online, while training goes on unmerged."""

import copy

import pytest
import torch

from clbench.clip.merging import flatten, ties
from clbench.core.errors import ClbenchError
from clbench.core.training import trained_parameters
from clbench.methods.magmax import MagMax
from clbench.testing.driving import begin, end, run_steps, run_task, trained_names
from tests.golden.golden import read

MERGES = {
    "magmax": lambda taus: 0.5 * taus.gather(0, taus.abs().argmax(dim=0, keepdim=True))[0],
    "average": lambda taus: taus.mean(dim=0),
    "task-arithmetic": lambda taus: 0.3 * taus.sum(dim=0),
    "ties": lambda taus: 0.55 * ties(taus, 0.2),
}


GOLDEN = {
    "magmax": ("max_abs_coef", "magmax.after4"),
    "average": (None, "average"),
    "task-arithmetic": ("task_arithmetic_coef", "task_arithmetic"),
    "ties": ("ties_coef", "ties"),
}
"""Each merge's factor and merged model in the golden file."""


@pytest.mark.parametrize("merge", GOLDEN)
def test_merges_as_released(merge):
    golden = read("merging")
    hp, (coefficient, prefix) = golden.metadata["hp"], GOLDEN[merge]
    prefix = prefix.replace("4", str(hp["tasks"]))

    def row(prefix):
        return flatten(golden.tensors[f"{prefix}.{name}"] for name in hp["ties_key_order"])

    start = row("theta0")
    method = MagMax(merge=merge, kept=hp["ties_topk"] / 100)
    method.deltas, method.count = start.new_zeros(0, len(start)), torch.zeros(())
    for task in range(1, hp["tasks"] + 1):
        method.count += 1
        method._add(row(f"theta{task}") - start)
    merged = start + (1 if coefficient is None else hp[coefficient]) * method._merged()
    torch.testing.assert_close(merged, row(prefix), atol=1e-6, rtol=0)


def prepared(model, **options):
    method = MagMax(**options)
    method.prepare(model)
    return method


@pytest.mark.parametrize("merge", MERGES)
def test_tests_the_merge_of_all_tasks_and_trains_on_without_it(tiny_clip, tiny_task_data, merge):
    method = prepared(tiny_clip, merge=merge)
    weights = trained_parameters(method)
    initial = flatten(weights)
    latest, taus = initial, []
    for index in range(3):
        task, data = tiny_task_data(index)
        driven = begin(method, task, data)
        assert torch.equal(flatten(weights), latest), "starts where the last task ended"
        run_steps(method, data, driven, range(2))
        latest = flatten(weights)
        taus.append(latest - initial)
        end(method, task, data)
        expected = initial + MERGES[merge](torch.stack(taus))
        torch.testing.assert_close(flatten(weights), expected, atol=1e-6, rtol=0)
    assert len(method.deltas) == (3 if merge == "ties" else 1)


def test_trains_the_image_encoder_only_unless_told(tiny_clip):
    names = trained_names(prepared(copy.deepcopy(tiny_clip)))
    assert all(name.startswith("model.network.visual.") for name in names)
    both = trained_names(prepared(tiny_clip, encoders="both"))
    assert names < both
    assert "model.network.text_projection" in both
    assert "model.network.logit_scale" not in both


def test_the_merged_model_answers_both_tasks(tiny_clip, tiny_task_data):
    """The claim: both are answered better than by zero-shot CLIP, the first also than unmerged."""
    tasks = [tiny_task_data(index) for index in range(2)]
    method = prepared(tiny_clip, encoders="both", scale=1.0)

    @torch.no_grad()
    def losses():
        return torch.tensor(
            [method.loss(next(data.batches(24)))["classification"] for _, data in tasks]
        )

    before = losses()
    for task, data in tasks:
        run_task(method, task, data, steps=30)
    merged = losses()
    begin(method, *tasks[0])  # back to the weights that were never merged
    assert (merged < before).all()
    assert merged[0] < losses()[0]


def test_refuses_to_keep_nothing():
    with pytest.raises(ClbenchError, match=r"kept=0.0: input should be greater than 0"):
        MagMax(kept=0.0)
