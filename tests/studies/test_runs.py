"""Runs of a study: chosen by settings, read with intervals; all numbers known by hand."""

from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.correctness import SUFFIX, encode_row
from clbench.core.results.result import ProbeRecord
from clbench.studies.runs import Estimate, Run, Runs
from tests.studies.made_up_runs import make_run


def make_runs(folder: Path) -> Runs:
    """NuSA-CL at two ranks with two seeds each; every image of a row right, or wrong."""
    right, wrong = [[True] * 4] * 2, [[False] * 4] * 2
    return Runs(
        [
            make_run(folder, "nusa", 0, [right, right, right], method__rank=8),
            make_run(folder, "nusa", 1, [right, right, wrong], method__rank=8),
            make_run(folder, "nusa", 0, [right, wrong, wrong], method__rank=16),
            make_run(folder, "nusa", 1, [right, wrong, wrong], method__rank=16),
        ]
    )


def test_runs_are_chosen_by_settings(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    assert [run.setting("seed") for run in runs.where(method__rank=16)] == [0, 1]
    assert len(runs.where(method="nusa", seed=1)) == 2
    assert not runs.where(method="lora")
    assert runs.values("method.rank") == [8, 16]
    assert runs.values("first_tasks") == [None]


def test_lists_can_be_asked_for_and_told_apart(tmp_path: Path) -> None:
    rows = [[[True] * 4] * 2] * 3
    orders = [["a", "b"], ["b", "a"]]
    runs = Runs([make_run(tmp_path, "nusa", 0, rows, benchmark__order=o) for o in orders])
    assert runs.values("benchmark.order") == ['["a", "b"]', '["b", "a"]']
    assert len(runs.where(benchmark__order=["b", "a"])) == 1


def test_means_are_over_all_runs(tmp_path: Path) -> None:
    assert make_runs(tmp_path).mean("last") == pytest.approx(25.0)
    assert make_runs(tmp_path).where(method__rank=8).mean("last") == pytest.approx(50.0)


def test_an_estimate_is_the_metric_with_an_interval_over_images(tmp_path: Path) -> None:
    half = [[True, True, False, False]] * 2
    runs = Runs([make_run(tmp_path, "nusa", 0, [half] * 3)])
    found = runs.estimate("last")
    assert found.value == pytest.approx(runs.mean("last")) == pytest.approx(50.0)
    assert found.low < 50 < found.high
    assert runs.estimate("learned").value == pytest.approx(100 * runs[0].result.summary["learned"])


def test_a_difference_pairs_seeds_and_images(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    found = runs.where(method__rank=8).difference(runs.where(method__rank=16), "average")
    # Of both rows, seed 0 is right in two against none, seed 1 in one against none.
    assert (found.value, found.low, found.high) == pytest.approx((75.0, 75.0, 75.0))
    assert found.clear
    assert str(found) == "+75.0 [+75.0, +75.0]"


def test_a_gain_is_measured_on_the_untrained_model(tmp_path: Path) -> None:
    half, wrong = [True, True, False, False], [False] * 4
    # Only the second task, before it is learned: half of its images, and none before training.
    run = make_run(tmp_path, "nusa", 0, [[wrong, wrong], [half, half], [wrong, half]])
    found = Runs([run]).gain("transfer")
    assert found.value == pytest.approx(50.0)
    assert found.low < 50 < found.high
    assert str(found).startswith("+50.0 [")


def test_a_gain_needs_a_test_before_training(tmp_path: Path) -> None:
    run = make_run(tmp_path, "nusa", 0, [[[True] * 4] * 2] * 3)
    file = run.file.with_suffix(SUFFIX)
    file.write_bytes(b"".join(encode_row(t, run.rows[t]) for t in (1, 2)))
    with pytest.raises(ClbenchError, match="not tested before training"):
        Runs([Run(run.file, run.result)]).gain("last")


def test_backward_transfer_is_that_of_the_summary(tmp_path: Path) -> None:
    right, half, wrong = [True] * 4, [True, True, False, False], [False] * 4
    rows = [[wrong] * 3, [right, wrong, wrong], [half, right, wrong], [half, wrong, right]]
    run = make_run(tmp_path, "nusa", 0, rows, tasks=("a", "b", "c"))
    found = Runs([run]).estimate("backward_transfer")
    # The first loses half of its images since it was learned, the second all.
    assert found.value == pytest.approx(-75.0)
    assert found.value == pytest.approx(100 * run.result.summary["backward_transfer"])


def test_runs_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    with pytest.raises(ClbenchError, match="one run per seed"):
        runs.difference(runs.where(method__rank=16), "average")
    with pytest.raises(ClbenchError, match="no run"):
        runs.where(method="lora").estimate("last")
    with pytest.raises(ClbenchError, match="no interval for 'forgetting'"):
        runs.estimate("forgetting")


def test_what_probes_found_is_read_by_row(tmp_path: Path) -> None:
    record = ProbeRecord(values={"gap": (1.0, 2.0, 4.0)}, seconds=(0.0, 0.0, 0.0))
    rows = [[[True] * 4] * 2] * 3
    runs = Runs([make_run(tmp_path, "nusa", 0, rows, probes={"gap": record})])
    assert (runs.probed("gap", "gap"), runs.probed("gap", "gap", row=0)) == (4.0, 1.0)
    assert runs.probed_after_tasks("gap", "gap") == 3.0
    with pytest.raises(ClbenchError, match="no 'width' of the probe 'gap'"):
        runs.probed("gap", "width")


def test_an_interval_is_clear_if_zero_lies_outside() -> None:
    assert Estimate(1, 0.5, 2).clear
    assert Estimate(-1, -2, -0.5).clear
    assert not Estimate(1, -0.5, 2).clear
