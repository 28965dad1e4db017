"""Many runs from the command line: planned, made by processes, and looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import clbench
from clbench.cli.app import app
from clbench.core.results.result import RunResult
from tests.small_runs import write_tasks


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks")


@pytest.fixture
def sweep_file(tmp_path: Path, tasks: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"""
        benchmark: folder:{tasks}
        methods: [zeroshot, finetune]
        seeds: 0-1
        backbones: [mini]
        device: cpu
        data_root: {tmp_path / "cache"}
        train: {{steps: 2, batch_size: 6, lr: 1.0e-3, warmup: 0}}
        """
    )
    return path


@pytest.fixture
def report(quick_runs: Path, tmp_path: Path) -> list[object]:
    """The command whose results lie in its folder for tables, where no runs are any more."""
    out = shutil.copytree(quick_runs / "out", tmp_path / "out")
    runs = ["--runs-dir", tmp_path / "runs", "--out", out]
    return ["compare", "--methods", "zeroshot,nusa", "--seeds", "0", "--quick", *runs]


def test_results_beside_the_tables_are_taken_over(report: list[object], tmp_path: Path) -> None:
    summary = (tmp_path / "out/summary.md").read_bytes()
    (tmp_path / "out/summary.md").unlink()
    done = invoke(*report)
    assert done.exit_code == 0, done.output
    assert f"2 of 2 results are taken over from {tmp_path / 'out'}/results" in done.stderr
    assert (tmp_path / "out/summary.md").read_bytes() == summary
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_what_would_be_another_result_today_is_made(report: list[object], tmp_path: Path) -> None:
    (file,) = (tmp_path / "out/results").glob("nusa-*.json")
    old = RunResult.load(file)
    source = old.method.model_copy(update={"source": "0" * 16})
    old.model_copy(update={"method": source}).save(file)
    planned = invoke(*report, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "1 of 2 results are taken over" in planned.stderr
    assert "nusa" in planned.stdout
    assert "zeroshot" not in planned.stdout


@pytest.mark.parametrize("option", [["--fresh"], ["--logger", "tensorboard"]])
def test_who_wants_the_runs_themselves_gets_them(report: list[object], option: list[str]) -> None:
    planned = invoke(*report, *option, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "taken over" not in planned.stderr
    assert "zeroshot" in planned.stdout


@pytest.mark.slow
def test_a_sweep_is_made_by_processes_and_the_same_command_makes_what_is_missing(
    sweep_file: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    command = ["sweep", sweep_file, "--runs-dir", runs, "--cpus", 1]
    first = invoke(*command, "--seeds", 0, "--out", tmp_path / "out")
    assert first.exit_code == 0, first.output
    assert "done    finetune on folder:" in first.stderr
    assert (tmp_path / "out" / "summary.md").is_file()
    paths = sorted(path.parent for path in runs.glob("*/*/*/result.json"))
    assert [path.parent.name for path in paths] == ["finetune", "zeroshot"]
    launch = clbench.load_result(paths[0]).provenance["launch"]
    assert launch["launcher"] == "local"
    assert clbench.load_result(paths[0]).provenance["threads"] == 1
    before = [(path / "result.json").read_bytes() for path in paths]

    planned = invoke(*command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "4 runs, 2 complete, 2 to make" in planned.stdout
    assert "other seeds (1)" in planned.stdout
    commands = [line for line in planned.stdout.splitlines() if line.startswith("clbench run")]
    assert len(commands) == 4
    assert all(line.endswith(f" --runs-dir {runs}") for line in commands), "each is one line"
    assert len(list(runs.glob("*/*/*/result.json"))) == 2, "nothing was made"

    again = invoke(*command, "--seeds", 0)
    assert again.exit_code == 0
    assert again.stderr == "", "nothing was started"
    assert [(path / "result.json").read_bytes() for path in paths] == before

    status = json.loads(invoke("status", runs, "--json").stdout)
    assert status["counts"]["done"] == 2
    assert status["eta_seconds"] == 0.0


@pytest.mark.slow
def test_what_nothing_is_known_of_is_tried(tmp_path: Path) -> None:
    """Smoke runs of a few steps tell what whole runs of `mini` will cost."""
    runs = tmp_path / "runs"
    command = ["sweep", "--benchmarks", "mini", "--methods", "zeroshot,finetune", "--cpus", 1]
    command += ["--seeds", "0-1", "--set", "device=cpu", "--runs-dir", runs, "--dry-run"]
    unknown = invoke(*command)
    assert "4 to make" in unknown.stdout
    assert "nothing like them was measured yet" in unknown.stdout

    tried = invoke(*command, "--trial")
    assert tried.exit_code == 0, tried.output
    assert tried.stderr.count("done    ") == 2, "one smoke run per method"
    told = " ".join(tried.stdout.split())
    steps = clbench.load_result(next(runs.glob(".launch/trials/*/finetune/*"))).cost.steps
    assert told.count(f"a trial of {steps} steps") == 2
    assert told.count("a trial of 0 steps") == 2
    assert "4 runs, 0 complete, 4 to make" in told
    assert list(runs.glob("*/*/*/result.json")) == [], "no run was made"

    again = invoke(*command, "--trial")
    assert (again.stdout, again.stderr) == (tried.stdout, ""), "the trials are kept"


@pytest.mark.slow
def test_missing_data_are_told_once(tmp_path: Path) -> None:
    outcome = invoke(
        *["compare", "--benchmark", "mtil", "--methods", "zeroshot,finetune", "--seeds", "0-1"],
        *["--backbone", "mini", "--root", tmp_path / "data", "--runs-dir", tmp_path / "runs"],
        *["--quiet", "--set", "device=cpu"],
    )
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("clbench: zeroshot on mtil, seed 0, and 3 other runs: ")
    assert str(tmp_path / "data") in line


def test_mistakes_are_told_before_anything_is_made(sweep_file: Path, tmp_path: Path) -> None:
    outcome = invoke(
        "sweep", sweep_file, "--grid", "train.lr=-1,1e-3", "--runs-dir", tmp_path / "r"
    )
    assert outcome.exit_code == 2
    assert "train.lr=-1" in outcome.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--launcher", "locl"], "did you mean 'local'?"),
        (["--memory", "much"], "expected a size"),
        (["--time", "soon"], "expected a duration"),
        (["--gpus", "1.5"], "a part of one device or a whole number"),
        (["--grid", "method.rank"], "expected key=value,value"),
    ],
)
def test_options_that_make_no_sense_are_one_line(options: list[str], message: str) -> None:
    outcome = invoke("sweep", "--methods", "zeroshot", "--seeds", "0", *options)
    assert outcome.exit_code == 2, outcome.output
    assert len(outcome.stderr.splitlines()) == 1
    assert message in outcome.stderr


def test_status_of_nothing_is_one_line(tmp_path: Path) -> None:
    outcome = invoke("status", tmp_path)
    assert outcome.exit_code == 2
    assert "no runs in" in outcome.stderr
