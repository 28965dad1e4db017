"""DMNSP: the released projection, and directions of outputs that later tasks leave alone."""

import pytest
import torch

from clbench.clip.subspaces.directions import complement
from clbench.methods.dmnsp import DMNSP, OutputSpace, coefficients_of, directions_of
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task
from clbench.testing.toys import make_tasks
from tests.golden.golden import read
from tests.golden.subspaces import assert_near, assert_near_in_norm, projector


def layers_of(golden):
    return range(golden.metadata["hp"]["layers"])


def space_of(stacked):
    """The space of a golden file's V, ``(d, T (d - 1))``."""
    dim = len(stacked)
    space = OutputSpace(dim, stacked=True)
    for columns in stacked.split(dim - 1, dim=1):
        space.put(torch.cat([complement(columns), columns], dim=1))
    assert torch.equal(space.left(), stacked)
    return space


def test_spaces_and_coefficients_are_the_released_ones():
    golden = read("dmnsp")
    hp = golden.metadata["hp"]
    spaces = {i: OutputSpace(hp["dim"], stacked=True) for i in layers_of(golden)}
    for index in range(hp["tasks"]):
        recorded = golden.below(f"task{index}.")
        if index:
            earlier = golden.below(f"task{index - 1}.V.")
            for i, vector in enumerate(recorded["first_vector"]):
                rows = recorded[f"first_batch.{i}"].flatten(0, 1)
                found = directions_of(rows.T @ rows)[:, 0]
                assert_near(found * (found @ vector).sign(), vector, 1e-5)
            left = [earlier[str(i)] for i in layers_of(golden)]
            found = coefficients_of(recorded["first_vector"], left, hp["lambda_scale"], signed=True)
            assert_near(found, recorded["lambda"], 1e-4)
        for i, space in spaces.items():
            rows = recorded[f"features.{i}"].flatten(0, 1)
            space.add(rows.T @ rows)
            expected = projector(recorded[f"V.{i}"])
            assert_near(projector(space.left()), expected, 1e-5)
            assert_near(space.project(torch.eye(hp["dim"])), expected, 1e-5)


def test_gradients_are_projected_as_released(tiny_clip):
    golden = read("dmnsp")
    method = DMNSP(as_released=True, bottleneck=golden.metadata["hp"]["bottleneck"])
    method.prepare(tiny_clip)
    method.projected = [None for _ in layers_of(golden)]
    for index in range(1, golden.metadata["hp"]["tasks"]):
        recorded = golden.below(f"task{index}.")
        earlier = golden.below(f"task{index - 1}.V.")
        method.spaces = torch.nn.ModuleList(space_of(earlier[str(i)]) for i in layers_of(golden))
        for j in layers_of(golden):
            down, up = (recorded[f"grad.{j}.{part}_proj"] for part in ("down", "up"))
            found = method._projected(j, down, up, recorded["lambda"][j])
            for part, gradient in zip(("down", "up"), found, strict=True):
                expected = recorded[f"grad_projected.{j}.{part}_proj"]
                assert_near_in_norm(gradient, expected, 1e-5)


def learned(clip, tasks, **options):
    method = DMNSP(bottleneck=8, dropout=0.0, **options)
    method.prepare(clip)
    for task, data in tasks:
        run_task(method, task, data, steps=8, rate=5e-3)
    return method


def test_what_is_left_is_common_to_all_tasks(tiny_clip):
    """V V^T of several tasks is no projection; that on what all tasks have left is."""
    method = learned(tiny_clip, make_tasks(3, 3, 4))
    for space in method.spaces:
        leading = space.vectors[:, :, 0]
        assert leading.shape == (3, 64)
        assert space.protected.shape[1] > 1
        assert_near(space.project(leading), torch.zeros_like(leading), 1e-3)
        rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
        once = space.project(rows)
        assert_near(space.project(once), once, 1e-5)
        assert once.norm() > 0.5 * rows.norm()
    space = method.spaces[0]
    before = space.protected.shape[1]
    space.put(space.vectors[0])  # the same direction again
    assert space.protected.shape[1] == before


def test_gradients_leave_what_is_protected(tiny_clip):
    tasks = make_tasks(3, 4)
    method = learned(tiny_clip, tasks[:1])
    task, data = tasks[1]
    begin(method, task, data)
    method.loss(next(data.batches(12)))["classification"].backward()
    raw = [a.up.weight.grad.clone() for a in method.projected]
    text = [a.up.weight.grad.clone() for a in method.adapters[: -len(raw)]]
    biases = [a.up.bias.grad.clone() for a in method.projected]
    method.after_backward()
    for adapter, space, gradient in zip(method.projected, method.spaces, raw, strict=True):
        protected = space.protected
        scale = adapter.up.weight.grad.norm()
        assert (protected.T @ gradient).norm() > 1e-3 * gradient.norm()
        assert (protected.T @ adapter.up.weight.grad).norm() < 1e-5 * scale
        assert (adapter.down.weight.grad @ protected).norm() < 1e-5 * scale
    assert all(
        torch.equal(a.up.bias.grad, b) for a, b in zip(method.projected, biases, strict=True)
    )
    free = method.adapters[: -len(raw)]
    assert all(torch.equal(a.up.weight.grad, g) for a, g in zip(free, text, strict=True))
    # The coefficient is that of the block itself.
    coefficient = method.coefficients[0, 0]
    assert 30 / torch.e < coefficient <= 30
    expected = method.spaces[0].project(raw[0].T).T * coefficient
    assert_near(method.projected[0].up.weight.grad, expected, 1e-5)


@pytest.mark.parametrize("projection", ["gradient", "update"])
def test_only_a_projected_update_stays_where_it_may(tiny_clip, projection):
    """AdamW divides a projected gradient entry by entry and leaves the subspace."""
    tasks = make_tasks(3, 4)
    method = learned(tiny_clip, tasks[:1], projection=projection)
    start = [a.up.weight.detach().clone() for a in method.projected]
    task, data = tasks[1]
    run_steps(method, data, begin(method, task, data), range(5))
    shares = []
    for adapter, space, before in zip(method.projected, method.spaces, start, strict=True):
        change = adapter.up.weight.detach() - before
        assert change.norm() > 1e-3
        shares.append((space.protected.T @ change).norm() / change.norm())
    assert (max(shares) < 1e-4) == (projection == "update")


def test_signs_of_vectors_change_no_coefficient_but_as_released():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 40, generator=generator), dim=1)
    left = [torch.linalg.qr(torch.randn(40, 39, generator=generator))[0]]
    for signed in (False, True):
        found = coefficients_of(vectors, left, 30.0, signed=signed)
        turned = coefficients_of(-vectors, left, 30.0, signed=signed)
        assert torch.allclose(found, turned) is not signed


@pytest.mark.slow
@pytest.mark.parametrize("params", [{"as_released": True}, {"projection": "update"}])
def test_keeps_the_contract_otherwise(params):
    check_method(DMNSP, params)
