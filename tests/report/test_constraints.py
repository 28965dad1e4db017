"""`clbench env`: the versions of a run as pip takes them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.report.constraints import constraints
from tests.made_up import MakeResult

RESULTS = Path(__file__).parents[2] / "reports/mini/results"
REPORT = next(RESULTS.glob("nusa-seed0-*.json"))


def pins(text: str) -> dict[str, str]:
    """Package to version, as pip would read the file."""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "--"))]
    requirements = [Requirement(line) for line in lines]
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert (requirement.url, requirement.marker, requirement.extras) == (None, None, set())
    return {r.name: next(iter(r.specifier)).version for r in requirements}


def with_packages(make_result: MakeResult, packages: Any, **more: Any) -> RunResult:
    return make_result().model_copy(update={"provenance": {"packages": packages, **more}})


def test_a_committed_run_gives_all_its_versions() -> None:
    result = RunResult.load(REPORT)
    outcome = CliRunner().invoke(app, ["env", str(REPORT)])
    assert outcome.exit_code == 0, outcome.output
    assert pins(outcome.stdout) == result.provenance["packages"]
    assert {"torch", "numpy", "clbench"} <= pins(outcome.stdout).keys()
    assert "# Python 3.11.7, Linux-" in outcome.stdout
    assert f"checkout of commit {result.provenance['git']['commit']}\n" in outcome.stdout


def test_the_versions_of_a_run_are_those_that_are_installed(quick_runs: Path) -> None:
    (run,) = (quick_runs / "mini/nusa").iterdir()
    found = pins(CliRunner().invoke(app, ["env", str(run)]).stdout)
    for package in ("torch", "numpy", "open-clip-torch", "lightning", "pyyaml"):
        assert found[package] == version(package)


def test_builds_of_pytorch_bring_their_index(make_result: MakeResult) -> None:
    packages = {"torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126", "numpy": "2.3.1"}
    lines = constraints(with_packages(make_result, packages)).splitlines()
    index = "--extra-index-url https://download.pytorch.org/whl/cu126"
    assert lines[-4:] == [
        index,
        "numpy==2.3.1",
        "torch==2.9.0+cu126",
        "torchvision==0.24.0+cu126",
    ]
    plain = constraints(with_packages(make_result, {"torch": "2.9.0", "mine": "1+local.patch"}))
    assert "--" not in plain


def test_a_checkout_with_changes_and_a_resumed_run_say_so(make_result: MakeResult) -> None:
    git = {"commit": "abc123", "dirty": True}
    found = with_packages(make_result, {"numpy": "2.3.1"}, git=git, resumed=["yesterday"])
    text = constraints(found)
    assert (
        "# clbench from a checkout of commit abc123, with changes that were not committed" in text
    )
    assert "# resumed: the versions are those of the last start" in text


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (None, "does not record the packages"),
        ({}, "does not record the packages"),
        (["numpy"], "does not record the packages"),
        ({"--index-url http://evil": "1.0"}, "'--index-url http://evil'"),
        ({"numpy": "1.0\n--index-url http://evil"}, "which is not"),
        ({"numpy\n--pre": "1.0"}, "which is not"),
        ({"numpy[extra]": "1.0"}, "which is not"),
        ({"numpy": "newest"}, "'newest', which is not valid"),
        ({"numpy": 2}, "which is not"),
        ({"numpy": None}, "which is not"),
        ({"numpy>=1,": "1.0"}, "which is not"),
    ],
)
def test_an_invalid_package_does_not_reach_pip(
    make_result: MakeResult, packages: Any, message: str
) -> None:
    with pytest.raises(ClbenchError, match=message):
        constraints(with_packages(make_result, packages))


def test_text_of_a_result_stays_in_its_comment(make_result: MakeResult) -> None:
    hostile = "6.1\n--index-url http://evil\x1b[2J"
    text = constraints(with_packages(make_result, {"numpy": "2.3.1"}, platform=hostile))
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["numpy==2.3.1"]
    assert "\x1b" not in text
