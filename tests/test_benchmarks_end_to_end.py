"""MTIL and CIFAR-100 from the command line, on small files in the real formats."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import clbench
from clbench import config
from clbench.cli.app import app
from tests.datamodules.test_folder import write_image
from tests.small_data import small_data, write_small_clip

SHORT = ("--set", "train.steps=2", "--set", "train.batch_size=8", "--set", "method.rank=4", "-q")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_data(tmp_path_factory.mktemp("data")) as folder:
        yield folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("weights") / "small.safetensors")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def result_in(runs: Path) -> clbench.RunResult:
    (path,) = runs.rglob("result.json")
    return clbench.load_result(path)


def test_nusa_on_five_shot_mtil(root: Path, backbone: Path, tmp_path: Path) -> None:
    command = ["run", "--method", "nusa", "--benchmark", "mtil-5shot", "--backbone", backbone]
    outcome = invoke(*command, "--root", root, "--runs-dir", tmp_path, *SHORT)
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    result = result_in(tmp_path)
    assert result.status == "complete"
    assert result.matrix.values.shape == (12, 11)
    assert not np.isnan(result.matrix.values).any()
    assert result.benchmark.order == "I"
    assert len(result.data.splits) == 22
    assert len(set(result.data.splits.values())) == 22
    assert result.config["benchmark"]["options"]["shots"] == 5


@pytest.mark.parametrize(
    "steps", [10, *(pytest.param(n, marks=pytest.mark.slow) for n in (20, 50))]
)
def test_nusa_on_cifar_in_steps(root: Path, backbone: Path, tmp_path: Path, steps: int) -> None:
    command = ["run", "--method", "nusa", "--benchmark", f"cifar100-{steps}step"]
    command += ["--backbone", str(backbone)]
    outcome = invoke(*command, "--root", root, "--runs-dir", tmp_path, *SHORT)
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    result = result_in(tmp_path)
    assert result.status == "complete"
    values = result.matrix.values
    known = np.tril(np.ones((steps, steps), bool))
    assert np.array_equal(~np.isnan(values[1:]), known)
    assert np.isnan(values[0]).all()
    assert sum(result.accuracy.counts) == 200


def test_random_crops_train_in_worker_processes(root: Path, backbone: Path, tmp_path: Path) -> None:
    command = ["run", "--method", "finetune", "--benchmark", "mtil", "--backbone", backbone]
    options = ["--set", "benchmark.order=[DTD, MNIST]", "--root", root, "-q"]
    options += ["--set", "train.steps=3", "--set", "train.batch_size=8"]
    values = []
    for workers in (0, 2):
        runs = tmp_path / str(workers)
        outcome = invoke(*command, *options, "--set", f"workers={workers}", "--runs-dir", runs)
        assert outcome.exit_code == 0, outcome.output + outcome.stderr
        values.append((next(runs.rglob("metrics.jsonl")).read_text(), result_in(runs).accuracy))
    assert values[0] == values[1]


def test_zero_shot_on_another_backbone_is_not_held_against_the_paper(
    root: Path, backbone: Path, tmp_path: Path
) -> None:
    command = ["run", "--method", "zeroshot", "--benchmark", "mtil", "--backbone", backbone]
    options = ["--set", "benchmark.order=[MNIST]", "--root", root, "--runs-dir", tmp_path, "-q"]
    outcome = invoke(*command, *options)
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    assert "zero-shot check: not comparable" in outcome.output


@pytest.mark.slow
def test_the_protocols_of_cifar_never_share_a_table(
    root: Path, backbone: Path, tmp_path: Path
) -> None:
    for protocol in ("clean", "published"):
        outcome = invoke(
            "run", "--method", "zeroshot", "--benchmark", "cifar100-10step", "--root", root,
            "--backbone", backbone, "--runs-dir", tmp_path, "-q",
            "--set", f"benchmark.protocol={protocol}",
        )  # fmt: skip
        assert outcome.exit_code == 0, outcome.output + outcome.stderr
    outcome = invoke("report", tmp_path)
    assert "order published, class-incremental" in outcome.output
    assert "order published, published protocol, class-incremental" in outcome.output
    assert "Not to be compared with" in outcome.output


def test_a_hidden_task_makes_another_table(root: Path, backbone: Path, tmp_path: Path) -> None:
    for setting in ("task-given", "task-hidden"):
        outcome = invoke(
            "run", "--method", "zeroshot", "--benchmark", "mtil-2shot", "--root", root,
            "--backbone", backbone, "--runs-dir", tmp_path, "-q",
            "--set", "benchmark.order=[DTD, MNIST]", "--set", f"benchmark.setting={setting}",
        )  # fmt: skip
        assert outcome.exit_code == 0, outcome.output + outcome.stderr
    outcome = invoke("report", tmp_path)
    assert "order DTD, MNIST, task-given" in outcome.output
    assert "order DTD, MNIST, task-hidden" in outcome.output


def test_a_folder_of_images_is_a_benchmark(tmp_path: Path, backbone: Path) -> None:
    for task, names in {"pets": ["cat", "dog"], "toys": ["ball", "car"]}.items():
        for name in names:
            for split in ("train", "test"):
                for i in range(3):
                    write_image(tmp_path / "own" / task / split / name / f"{split}{i}.jpg")
    runs = tmp_path / "runs"
    outcome = invoke(
        "run", "--benchmark", f"folder:{tmp_path / 'own'}", "--backbone", backbone,
        "--root", tmp_path / "cache", "--runs-dir", runs, *SHORT,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    assert result_in(runs).benchmark.tasks == ("pets", "toys")
    assert len(list(runs.iterdir())) == 1


def failure(*arguments: object) -> list[str]:
    """What a command that must fail says on standard error."""
    outcome = invoke(*arguments)
    assert outcome.exit_code == 2, outcome.output + outcome.stderr
    return outcome.stderr.splitlines()


def test_missing_data_end_a_run_before_it_leaves_anything(
    root: Path, backbone: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "dtd", tmp_path / "data" / "dtd")
    lines = failure(
        "run", "--benchmark", "mtil", "--backbone", backbone, "--root", tmp_path / "data",
        "--runs-dir", tmp_path / "runs", *SHORT,
    )  # fmt: skip
    assert len([line for line in lines if " missing" in line]) == 10
    assert not any(line.startswith("clbench: DTD") for line in lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_damaged_inputs_are_one_clear_line_and_leave_nothing(
    root: Path, backbone: Path, tmp_path: Path
) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    shutil.copytree(root / "dtd", data / "dtd")
    broken = next(data.rglob("banded_0001.jpg"))
    broken.write_bytes(broken.read_bytes()[:250])
    command = ["run", "--benchmark", "mtil", "--backbone", backbone, "--root", data]
    command += ["--runs-dir", runs, *SHORT]
    order = ["--set", "benchmark.order=[DTD]"]
    cases = {
        "cannot read the image": [*order, "--set", "train.steps=9"],
        "unknown benchmark.order 'IV'": ["--set", "benchmark.order=IV"],
        "class 'banded' has 6 training images": [*order, "--set", "benchmark.shots=7"],
        "benchmark.shots=0": ["--set", "benchmark.shots=0"],
    }
    for expected, options in cases.items():
        (line,) = failure(*command, *options)
        assert expected in line
    assert not runs.exists()
    assert not [
        p for p in (data / "decoded").iterdir() if "train" in p.name and p.suffix != ".lock"
    ]


@pytest.mark.parametrize(
    "benchmark",
    [
        ["mtil-5shot", "--set", "benchmark.order=[DTD, MNIST]"],
        pytest.param(["cifar100-10step"], marks=pytest.mark.slow),
        pytest.param(["mtil-5shot"], marks=pytest.mark.slow),
        pytest.param(["cifar100-50step"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_mini_backbone_is_good_for_a_smoke_test(
    root: Path, tmp_path: Path, benchmark: list[str]
) -> None:
    options = ["--root", root, "--runs-dir", tmp_path / "runs", *SHORT[:-1]]
    outcome = invoke(
        "run", "--method", "nusa", "--benchmark", *benchmark, "--backbone", "mini", *options
    )
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    assert "other words replace them" in " ".join(outcome.stderr.split())
    assert result_in(tmp_path / "runs").status == "complete"


def test_missing_weights_and_missing_data_are_reported_together(tmp_path: Path) -> None:
    options = ["--root", tmp_path / "data", "--runs-dir", tmp_path / "runs", "-q"]
    lines = failure(
        "run", "--benchmark", "mtil", "--backbone", tmp_path / "no.safetensors", *options
    )
    assert "no.safetensors" in lines[0]
    assert sum("clbench data prepare" in line for line in lines) == 11
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_alone_means_openais_weights() -> None:
    expected = {"backbone.model": "ViT-B-32", "backbone.weights": "openai"}
    assert config.backbone_settings("ViT-B-32") == expected


@pytest.mark.parametrize("name", ["/openai", "ViT-B-16/", "a/b/c"])
def test_a_backbone_that_is_no_name_is_refused(name: str) -> None:
    (line,) = failure("run", "--backbone", name)
    assert "--backbone" in line
