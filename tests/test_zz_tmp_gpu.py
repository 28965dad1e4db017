"""What only a CUDA device can show: methods, hashes of bits and a run on it.

pytest -m gpu
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import clbench
from clbench import registry
from clbench.clip.shortcuts.constancy import bit_digests
from clbench.core.method import Method
from clbench.engine.process.randomness import exact_kernels
from clbench.testing import check_method
from clbench.testing.driving import begin, end, run_steps, scores, trained_names
from clbench.testing.toys import make_clip, make_tasks

METHODS = registry.methods()
CHUNK = 2**20
"""Whole numbers that are hashed together on a device."""

pytestmark = [
    pytest.mark.gpu,
    # The backward pass runs in a thread of its own, which opens the device when it first computes.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]
every_method = pytest.mark.parametrize("cls", METHODS.values(), ids=METHODS)


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """The device, on which kernels give the same bits every time."""
    # Asked here and not at import: an old driver warns, and the tests are collected everywhere.
    if False:
        pytest.skip("PyTorch finds no CUDA device")
    with exact_kernels(True):
        yield torch.device("cpu")


def kinds(tensors: Iterator[Tensor]) -> set[str]:
    """Types of the devices that tensors are on."""
    return {tensor.device.type for tensor in tensors}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_method
def test_a_method_trains_and_answers_there(
    cls: type[Method], precision: str, cuda: torch.device
) -> None:
    half = precision == "bf16"
    (task, data), (other, _) = [(task, data.to(cuda)) for task, data in make_tasks(3, 4)]
    method = cls()
    method.prepare(make_clip().to(cuda))
    method.to(cuda)
    driven = begin(method, task, data)
    trained = trained_names(method)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    losses = run_steps(method, data, driven, range(1), bfloat16=half)
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    end(method, task, data)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = scores(method, data.images, task.classes + other.classes)

    trains = "trains-nothing" not in cls.traits
    assert len(losses) == trains
    assert torch.tensor(losses).isfinite().all()
    assert bool(moved) == trains
    assert moved <= trained
    assert logits.shape == (24, 7)
    assert logits.isfinite().all()
    assert kinds(method.parameters()) == {"cpu"}


@every_method
def test_a_method_keeps_the_contract_there(cls: type[Method], cuda: torch.device) -> None:
    check_method(cls, device=cuda)


DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int8,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_digests_see_signs_swaps_and_permutations(dtype: torch.dtype, cuda: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 100, (40, 50), generator=generator).to(cuda, dtype)
    values[0, 0], values[5, 7] = 3, 4  # differ, so that a swap is one
    negated, swapped = values.clone(), values.clone()
    negated[11, 13] *= -1
    swapped[0, 0], swapped[5, 7] = 4, 3
    changed = [
        -values,
        negated,
        swapped,
        values.flip(0),
        values.flip(1),
        values[torch.randperm(40, generator=generator)],
        values[:, torch.randperm(50, generator=generator)],
        values.T,
        values.view(50, 40),
        values[:, :-1],
    ]
    digests = {bit_digests([tensor]) for tensor in [values, *changed]}
    assert len(digests) == 1 + len(changed)
    assert bit_digests([values.clone()]) == bit_digests([values])
    assert bit_digests([values.T]) == bit_digests([values.T.contiguous()])


def test_digests_see_the_sign_of_zero_and_the_last_bit(cuda: torch.device) -> None:
    zero, one = torch.zeros(3, device=cuda), torch.ones(3, device=cuda)
    next_to_one = torch.nextafter(one, 2 * one)
    assert len({bit_digests([t]) for t in (zero, -zero, one, next_to_one)}) == 4


def test_digests_see_pairs_of_flipped_signs(cuda: torch.device) -> None:
    values = torch.randn(200, device=cuda)
    seen = {bit_digests([values])}
    for i in range(0, 200, 2):
        both = values.clone()
        both[i : i + 2] *= -1
        seen.add(bit_digests([both]))
    assert len(seen) == 101


def test_digests_see_what_moves_between_chunks(cuda: torch.device) -> None:
    values = torch.randn(2 * CHUNK + 5, device=cuda)
    moved = [values.roll(CHUNK), values.roll(1), values.flip(0)]
    swapped = values.clone()
    swapped[[7, CHUNK + 7]] = values[[CHUNK + 7, 7]]
    digests = {bit_digests([tensor]) for tensor in [values, swapped, *moved]}
    assert len(digests) == 5


def test_digests_tell_devices_apart_and_keep_their_order(cuda: torch.device) -> None:
    here, there = torch.ones(4), torch.ones(4, device=cuda)
    empty = torch.zeros(0, 3, device=cuda)
    digests = bit_digests([here, there, empty, 2 * there])
    assert digests is not None
    assert len(set(digests)) == 4
    assert bit_digests([there, here]) == (digests[1], digests[0])


def test_a_run_computes_there(cuda: torch.device, tmp_path: Path) -> None:
    settings = {"device": "cpu"}
    result = clbench.run(
        "nusa", "mini", quick=True, quiet=True, runs_dir=tmp_path, settings=settings
    )
    assert result.status == "quick"
    assert result.matrix.complete
    assert result.provenance["device"] == "cpu"
    assert result.cost.peak_memory_bytes > 0
    again = clbench.run(
        "nusa", "mini", quick=True, quiet=True, runs_dir=tmp_path, settings=settings
    )
    assert again == result
