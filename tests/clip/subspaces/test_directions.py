"""Subspaces: hand-computed ranks, exact orthogonality, the precision of small directions."""

import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from clbench.clip.subspaces.directions import (
    FeatureSplit,
    gram_null_basis,
    minor_components,
    null_factors,
    principal_rank,
    project,
    random_orthonormal,
    thin_svds,
)
from clbench.clip.subspaces.gram import BLOCKED_FROM, gram_matrix
from clbench.clip.subspaces.leading import leading_subspace
from clbench.clip.subspaces.memory import FeatureMemory
from clbench.clip.subspaces.parallel import decompose_each


def with_spectrum(*values: float, shape: tuple[int, int] | None = None) -> torch.Tensor:
    """A matrix with random singular vectors and the given singular values, in float64."""
    out, inputs = shape or (len(values), len(values))
    u, v = random_orthonormal(out, len(values)), random_orthonormal(inputs, len(values))
    return (u * torch.tensor(values, dtype=torch.float64)) @ v.T


@pytest.mark.parametrize(
    ("rho", "rank"),
    [(0.5, 1), (16 / 30, 1), (16 / 30 + 1e-9, 2), (25 / 30, 2), (0.9, 3), (1.0, 4)],
)
def test_principal_rank_is_the_first_to_reach_the_share(rho, rank):
    # energies 16, 9, 4, 1 of 30
    assert principal_rank(torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64), rho) == rank


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=60)
def test_principal_rank_is_enough_and_not_one_too_many(values, rho):
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    k = principal_rank(s, rho)
    share = s.square().cumsum(0) / s.square().sum()
    assert share[k - 1] >= rho - 1e-12
    assert k == 1 or share[k - 2] < rho + 1e-12


def test_null_factors_are_the_smallest_directions():
    weight = with_spectrum(10, 9, 8, 3, 2, 1)  # energies 100, 81, 64, 9, 4, 1 of 259
    factors = null_factors(weight.float(), 2, 0.9)
    assert (factors.principal_rank, factors.used) == (3, 2)
    diagonal = factors.u.double().T @ weight @ factors.v.double()
    expected = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(diagonal, expected, atol=1e-5, rtol=0)


def test_top_factors_are_as_many_but_the_largest():
    weight = with_spectrum(10, 9, 8, 3, 2, 1)
    factors = null_factors(weight.float(), 2, 0.9, "top")
    values = (factors.u.double().T @ weight @ factors.v.double()).diagonal()
    torch.testing.assert_close(
        values, torch.tensor([10.0, 9.0], dtype=torch.float64), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("space", ["tail", "top", "random"])
def test_missing_directions_are_zero_columns(space):
    factors = null_factors(with_spectrum(10, 9, 8, 3, 2, 1).float(), 5, 0.9, space)
    assert (factors.principal_rank, factors.used) == (3, 3)
    for columns in (factors.u, factors.v):
        assert columns.shape == (6, 5)
        identity = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))
        torch.testing.assert_close(columns.T @ columns, identity, atol=1e-6, rtol=0)


def test_weight_without_null_space_gives_no_direction():
    factors = null_factors(torch.eye(4), 2, 1.0)
    assert factors.used == 0
    assert not factors.u.any()
    assert not factors.v.any()


def test_rectangular_weights_keep_their_sides_apart():
    weight = with_spectrum(5, 4, 1, 0, shape=(7, 4)).float()
    factors = null_factors(weight, 2, 0.9)
    assert (factors.u.shape, factors.v.shape, factors.used) == ((7, 2), (4, 2), 2)
    assert (weight.T @ factors.u).norm(dim=0).tolist() == pytest.approx([1, 0], abs=1e-5)
    assert (weight @ factors.v).norm(dim=0).tolist() == pytest.approx([1, 0], abs=1e-5)


def test_random_directions_follow_the_generator():
    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return null_factors(with_spectrum(9, 2, 1).float(), 2, 0.9, "random", generator).u

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_random_orthonormal_has_no_preferred_direction():
    samples = torch.stack([random_orthonormal(3, 2) for _ in range(3000)])
    mean = samples.mean(dim=0)  # 0 for a uniform draw; bare QR gives -0.5 on the diagonal
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=0.05, rtol=0)


@pytest.mark.parametrize("rank", [1, 2, 4, 9])
def test_minor_components_sum_to_the_tail(rank):
    weight = with_spectrum(8, 4, 2, 1).float()
    up, down = minor_components(weight, rank)
    assert (up.shape, down.shape) == ((4, rank), (rank, 4))
    kept = torch.linalg.svdvals(up @ down)[: min(rank, 4)]
    torch.testing.assert_close(kept, torch.tensor([8.0, 4.0, 2.0, 1.0])[-rank:], atol=1e-5, rtol=0)
    rest = torch.linalg.svdvals(weight - up @ down)
    assert rest[max(4 - rank, 0) :].abs().sum() < 1e-4
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("rho", "kept"), [(0.06, 3), (0.09, 3), (0.11, 2), (0.31, 1), (1.0, 1), (0.01, 4)]
)
def test_gram_null_space_holds_less_than_the_share(rho, kept):
    # tails: all, 0.3, 0.1 and 0.05 of the sum
    q = random_orthonormal(4, 4)
    gram = (q * torch.tensor([7.0, 2.0, 0.5, 0.5], dtype=torch.float64)) @ q.T
    split = gram_null_basis(gram, rho)
    assert split.kept.shape == (4, kept)
    assert split.null.shape == (4, 4 - kept)


def test_gram_null_space_is_that_of_an_svd():
    x = torch.randn(200, 12, dtype=torch.float64) * torch.logspace(0, -2, 12)
    gram = x.T @ x
    u, s, _ = torch.linalg.svd(gram)
    tails = [(s[k:].sum() / s.sum()).item() for k in range(13)]
    k = next(k for k in range(13) if tails[k] < 0.15)
    split = gram_null_basis(gram, 0.15)
    assert split.kept.shape[1] == k
    torch.testing.assert_close(split.null @ split.null.T, u[:, k:] @ u[:, k:].T)


def test_float64_keeps_directions_that_float32_mixes():
    spectrum = torch.ones(40, dtype=torch.float64)
    spectrum[-2:] = torch.tensor([4e-8, 1e-8])  # condition number 1e8
    q = random_orthonormal(40, 40)
    gram = (q * spectrum) @ q.T
    smallest = q[:, -1:]
    split = gram_null_basis(gram, 2e-8 / 38)  # between the two
    assert split.null.shape[1] == 1
    assert (split.null.T @ smallest).abs().item() == pytest.approx(1, abs=1e-6)
    single = torch.linalg.eigh(gram.float()).eigenvectors[:, 0].double()
    assert (single @ smallest).abs().item() < 0.999


def test_empty_memory_protects_nothing():
    split = gram_null_basis(torch.zeros(3, 3), 0.15)
    assert (split.kept.shape[1], split.null.shape[1]) == (0, 3)


@pytest.mark.parametrize("kept", [0, 2, 6, 8])
def test_projection_is_the_dense_projector(kept):
    basis, x = random_orthonormal(8, 8), torch.randn(5, 8, dtype=torch.float64)
    thin, holds_kept = (basis[:, :kept], True) if kept <= 4 else (basis[:, kept:], False)
    split = FeatureSplit(thin, holds_kept)
    null = basis[:, kept:]
    torch.testing.assert_close(split.null @ split.null.T, null @ null.T)
    torch.testing.assert_close(split.kept @ split.kept.T, torch.eye(8).double() - null @ null.T)
    projected = project(x, split)
    torch.testing.assert_close(projected, x @ split.null @ split.null.T)
    torch.testing.assert_close(project(projected, split), projected)
    assert (projected @ split.kept).abs().sum() < 1e-12


def test_memory_streams_batches():
    memory = FeatureMemory(4, rho=0.2)
    first, second = torch.randn(3, 5, 4), torch.randn(2, 5, 4)
    memory.add(first, len(first))
    memory.add(second, len(second))
    memory.commit()

    grams = [x.flatten(0, 1).T @ x.flatten(0, 1) for x in (first, second)]
    total = sum(gram / gram.norm() for gram in grams)
    torch.testing.assert_close(memory.gram, total / total.norm())
    memory.commit()  # without features nothing is added
    torch.testing.assert_close(memory.gram, total / total.norm())


def test_inputs_of_one_pass_are_scaled_in_batches():
    features = torch.randn(7, 3, 4) * torch.arange(1, 8).view(-1, 1, 1)
    together, apart = FeatureMemory(4, rho=0.2), FeatureMemory(4, rho=0.2)
    together.add(features, 2)
    for part in features.split(2):
        apart.add(part, 2)
    for memory in (together, apart):
        memory.commit()
    torch.testing.assert_close(together.gram, apart.gram)
    apart.add(features, 7)
    apart.commit()
    assert not torch.allclose(apart.gram - together.gram, together.gram, atol=1e-3)


def test_memory_forgets_its_null_space_when_it_changes():
    memory, other = FeatureMemory(4, rho=0.2), FeatureMemory(4, rho=0.2)
    memory.add(torch.eye(4)[:1], 1)
    memory.commit()
    assert memory.project(torch.eye(4)).diagonal().tolist() == pytest.approx([0, 1, 1, 1])
    other.add(torch.eye(4)[1:2], 1)
    other.commit()
    memory.load_state_dict(other.state_dict())
    assert memory.project(torch.eye(4)).diagonal().tolist() == pytest.approx([1, 0, 1, 1])
    memory.add(torch.eye(4)[2:3], 1)
    memory.commit()
    assert memory.project(torch.eye(4)).diagonal().tolist() == pytest.approx([1, 0, 0, 1])


def spectral_gram(spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A Gram matrix with the given eigenvalues, and its eigenvectors."""
    q = random_orthonormal(len(spectrum), len(spectrum))
    gram = (q * spectrum) @ q.T
    return (gram + gram.T) / 2, q


INDEX = torch.arange(1, 301, dtype=torch.float64)
SPECTRA = {
    "power law": INDEX**-1.5,
    "one direction dominates": torch.cat([torch.tensor([20.0]).double(), 1 / INDEX[:-1] ** 1.5]),
    "exponential": torch.exp(-INDEX / 20),
    # condition number 1e8; the cut lies between eigenvalues that float32 mixes
    "almost degenerate": torch.cat(
        [1 + 1e-7 * INDEX.flip(0)[:40], 1e-3 * INDEX.flip(0)[40:] / 300, torch.zeros(0).double()]
    ),
    "small directions": torch.logspace(0, -8, 300, dtype=torch.float64),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_leading_directions_are_those_of_float64(name):
    gram, q = spectral_gram(SPECTRA[name])
    kept = leading_subspace(gram, 0.15)
    assert kept is not None
    values = torch.linalg.eigvalsh(gram).flip(0)
    tails = [(values[k:].sum() / values.sum()).item() for k in range(301)]
    k = next(k for k in range(301) if tails[k] < 0.15)
    assert kept.shape == (300, k)
    torch.testing.assert_close(kept.T @ kept, torch.eye(k).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(kept @ kept.T, q[:, :k] @ q[:, :k].T, atol=2e-7, rtol=0)
    single = torch.linalg.eigh(gram.float()).eigenvectors.flip(1)[:, :k].double()
    missed = (single @ single.T - q[:, :k] @ q[:, :k].T).norm()
    assert missed > 10 * (kept @ kept.T - q[:, :k] @ q[:, :k].T).norm()


def test_leading_directions_are_left_to_a_full_decomposition_where_they_are_many():
    flat, _ = spectral_gram(1 + INDEX / 1000)
    assert leading_subspace(flat, 0.15) is None
    assert leading_subspace(torch.zeros(8, 8, dtype=torch.float64), 0.15) is None


@pytest.mark.parametrize(("decay", "narrow"), [(1.5, True), (0.1, False)])
def test_large_memories_give_the_null_space_of_a_full_decomposition(decay, narrow):
    index = torch.arange(1, 601, dtype=torch.float64)
    gram, q = spectral_gram(index**-decay)
    assert (leading_subspace(gram, 0.15) is not None) == narrow
    split = gram_null_basis(gram, 0.15)
    k = split.kept.shape[1]
    tails = [(index[j:] ** -decay).sum() / (index**-decay).sum() for j in (k - 1, k)]
    assert tails[0] >= 0.15 > tails[1]
    x = torch.randn(3, 600, dtype=torch.float64)
    torch.testing.assert_close(project(x, split), x @ q[:, k:] @ q[:, k:].T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [5, BLOCKED_FROM, BLOCKED_FROM + 3])
def test_gram_matrices_by_blocks_are_the_product(width):
    x = torch.randn(9, width, dtype=torch.float64)
    torch.testing.assert_close(gram_matrix(x), x.T @ x)


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_several_decompositions_are_those_of_each_alone():
    weights = [torch.randn(shape, requires_grad=True) for shape in ((256, 300), (260, 256))] * 2
    threads: set[int] = set()

    def singular_values(matrix: torch.Tensor) -> torch.Tensor:
        threads.add(threading.get_ident())
        assert torch.get_num_threads() == 1
        values = torch.linalg.svdvals(matrix)
        assert not values.requires_grad
        return values

    values = decompose_each(singular_values, weights)
    assert len(threads) == 2
    assert torch.get_num_threads() == 2
    for weight, found, svd in zip(weights, values, thin_svds(weights), strict=True):
        torch.testing.assert_close(found, torch.linalg.svdvals(weight.detach()))
        torch.testing.assert_close(svd.u * svd.s @ svd.vh, weight.detach(), atol=1e-4, rtol=0)
        assert null_factors(weight, 3, 0.9, svd=svd).used == null_factors(weight, 3, 0.9).used


@pytest.mark.usefixtures("two_threads")
def test_threads_come_back_after_a_failed_decomposition():
    with pytest.raises(RuntimeError):
        decompose_each(torch.linalg.cholesky, [-torch.eye(256)] * 2)
    assert torch.get_num_threads() == 2


def test_all_memories_are_split_as_each_alone():
    memories = [FeatureMemory(4, rho=0.2), FeatureMemory(3, rho=0.3), FeatureMemory(4, rho=0.2)]
    for memory in memories:
        memory.add(torch.randn(9, len(memory.gram)), 9)
        memory.commit()
    expected = [gram_null_basis(memory.gram, memory.rho).thin for memory in memories]
    FeatureMemory.split_all(memories)
    for memory, thin in zip(memories, expected, strict=True):
        assert torch.equal(memory.split().thin, thin)
