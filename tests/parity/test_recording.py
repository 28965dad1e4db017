"""What tests compare with golden tensors is noted, and nothing else."""

from __future__ import annotations

import textwrap

import pytest
import torch

from tests.golden.golden import read
from tests.golden.subspaces import assert_near
from tests.parity.measuring import golden_tests
from tests.parity.recording import Recorder


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_notes_difference_tolerance_and_the_name_of_the_golden_tensor(recorder: Recorder) -> None:
    with recorder.active():
        gradients = read("gnsp").below("grad.")
        for gradient in gradients.values():
            assert_near(gradient + 1e-3, gradient, 4e-3)
    assert len(recorder.rows()) == len(gradients) == 2
    for row in recorder.rows():
        assert row["golden"] == ["gnsp"]
        assert row["quantity"].startswith("grad.visual.")
        assert (row["comparisons"], row["atol"], row["rtol"]) == (1, 4e-3, 0.0)
        assert row["difference"] == pytest.approx(1e-3, rel=1e-2)
        assert row["share"] == pytest.approx(0.25, rel=1e-2)


def test_what_is_computed_from_golden_tensors_is_named_as_it_is_written(
    recorder: Recorder,
) -> None:
    with recorder.active():
        ranks = read("nusa_r16_rho95").tensors["task0.ranks"]
        assert_near(2 * ranks, ranks + ranks, 0.5)
        assert torch.equal(ranks.clone(), ranks)
    assert [row["quantity"] for row in recorder.rows()] == ["ranks + ranks", "task*.ranks"]


def test_a_comparison_that_fails_still_fails(recorder: Recorder) -> None:
    with recorder.active():
        ranks = read("nusa_r16_rho95").tensors["task0.ranks"]
        with pytest.raises(AssertionError, match="not close"):
            assert_near(ranks + 1, ranks, 0.5)
        assert not torch.equal(ranks + 1, ranks)
    assert recorder.rows() == []


def test_other_comparisons_are_not_noted(recorder: Recorder) -> None:
    with recorder.active():
        assert_near(torch.ones(2), torch.ones(2), 0.1)
    assert_near(torch.ones(2), torch.ones(2), 0.1)
    assert recorder.rows() == []


def test_finds_the_tests_that_open_golden_files_by_themselves_or_by_a_helper() -> None:
    source = """
        def golden():
            return read("rail")

        def helper(name):
            return golden()

        def test_by_itself():
            opened("nusa")

        def test_by_a_helper():
            helper("x")

        def test_by_a_fixture(golden):
            pass

        def test_of_something_else():
            assert helpless()
    """
    found = golden_tests(textwrap.dedent(source))
    assert found == ["test_by_itself", "test_by_a_helper", "test_by_a_fixture"]
