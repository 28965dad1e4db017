"""Committed runs of the embedded comparison, made again: the same answer to every image."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.results.correctness import SUFFIX
from clbench.core.results.result import RunResult

RESULTS = Path(__file__).parents[1] / "reports/mini/results"
MACHINE = ("processor", "instructions", "python", "threads")
"""What must be the same, beside the version of PyTorch, for sums to be rounded alike."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zeroshot", "rail", "finetune", "nusa"])
def test_the_same_machine_gives_the_same_bits(method: str, tmp_path: Path) -> None:
    (committed,) = RESULTS.glob(f"{method}-seed0-*.json")
    command = ["compare", "--benchmark", "mini", "--methods", method, "--seeds", "0", "-q"]
    command += ["--cpus", "1", "--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path)]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0, outcome.output
    again = tmp_path / "results" / committed.name
    before, now = (RunResult.load(file).provenance for file in (committed, again))
    for key in MACHINE:
        if before[key] != now[key]:
            pytest.skip(f"{key}: {before[key]} there, {now[key]} here")
    if before["packages"]["torch"] != now["packages"]["torch"]:
        pytest.skip("another PyTorch")
    bits = [file.with_suffix(SUFFIX).read_bytes() for file in (committed, again)]
    assert bits[0] == bits[1]
