"""Merged models are those of the released code, and merges have the properties they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clbench.clip.merging import (
    assign,
    flatten,
    interpolated,
    larger_magnitude,
    ties,
    trimmed,
    unflatten,
    unified,
)
from tests.golden.golden import Golden, read

CLOSE = {"atol": 1e-6, "rtol": 0}


def row(golden: Golden, prefix: str) -> Tensor:
    """All float tensors below a prefix in one row, by sorted name."""
    found = golden.below(f"{prefix}.")
    return flatten(found[name] for name in golden.metadata["hp"]["ties_key_order"])


def deltas(golden: Golden) -> Tensor:
    count = golden.metadata["hp"]["tasks"]
    return torch.stack([row(golden, f"theta{t + 1}") - row(golden, "theta0") for t in range(count)])


def test_largest_magnitude_task_after_task_is_the_released_one() -> None:
    golden = read("merging")
    start, scale = row(golden, "theta0"), golden.metadata["hp"]["max_abs_coef"]
    running, *later = deltas(golden)
    for n, delta in enumerate([None, *later], 1):
        running = running if delta is None else larger_magnitude(running, delta)
        torch.testing.assert_close(running, row(golden, f"max_abs.after{n}"), **CLOSE)
        merged = row(golden, f"magmax.after{n}")
        torch.testing.assert_close(start + scale * running, merged, **CLOSE)


def test_ties_are_the_released_ones() -> None:
    golden = read("merging")
    hp, taus = golden.metadata["hp"], deltas(golden)
    share = hp["ties_topk"] / 100
    kept = trimmed(taus, share).ne(0).float().mean(dim=1)
    torch.testing.assert_close(kept, golden.tensors["ties.kept_fraction"], atol=1e-3, rtol=0)
    merged = row(golden, "theta0") + hp["ties_coef"] * ties(taus, share)
    torch.testing.assert_close(merged, row(golden, "ties"), **CLOSE)


def test_interpolation_is_the_released_one_with_and_without_fisher() -> None:
    golden = read("wise_original")
    hp = golden.metadata["hp"]
    before, after = golden.below("theta0."), golden.below("theta1.")
    for i, alpha in enumerate(hp["alphas"]):
        for name in before:
            found = interpolated(before[name], after[name], alpha)
            torch.testing.assert_close(found, golden.tensors[f"plain.{name}"][i], **CLOSE)
            ones = torch.ones_like(before[name])
            weights = tuple(golden.tensors.get(f"fisher{m}.{name}", ones) for m in (0, 1))
            found = interpolated(before[name], after[name], alpha, weights, hp["fisher_floor"])
            torch.testing.assert_close(found, golden.tensors[f"fisher.{name}"][i], **CLOSE)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 1.0), (1.0, 3.0)])
def test_interpolation_ends_at_both_models(alpha: float, expected: float) -> None:
    before, after = torch.tensor([1.0]), torch.tensor([3.0])
    assert interpolated(before, after, alpha).item() == expected


@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_an_entry_that_one_task_alone_changed_survives_every_merge(rows: list[list[int]]) -> None:
    """The last entry is changed by the first task only, more than any other."""
    taus = torch.tensor(rows, dtype=torch.float32)
    taus[:, -1] = 0
    taus[0, -1] = 9
    running = taus[0]
    for delta in taus[1:]:
        running = larger_magnitude(running, delta)
    assert running[-1] == 9
    assert ties(taus, 1.0)[-1] == 9
    merged, masks = unified(taus)
    assert merged[-1] == 9
    assert masks[:, -1].tolist() == [True] + [False] * (len(rows) - 1)
    assert torch.equal(merged.abs(), (taus.abs() * masks).amax(dim=0))


def test_weights_go_into_a_row_and_back() -> None:
    weights = [torch.nn.Parameter(torch.randn(2, 3)), torch.nn.Parameter(torch.randn(4))]
    taken = flatten(weights)
    assert [part.shape for part in unflatten(taken, weights)] == [(2, 3), (4,)]
    assign(weights, 2 * taken)
    torch.testing.assert_close(flatten(weights), 2 * taken)
    taken.zero_()
    assert flatten(weights).ne(0).all(), "the row is a copy"
