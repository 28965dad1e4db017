"""What shells offer after the tab key, asked as the shells ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench import registry
from clbench.cli import completion
from clbench.cli.app import app
from clbench.core.settings import RunSettings


def complete(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    environment = {
        "_CLBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    outcome = CliRunner().invoke(app, [], prog_name="clbench", env=environment)
    assert outcome.exit_code == 0, outcome.output
    return [line for line in outcome.stdout.splitlines() if line]


def test_the_options_that_install_completion_are_there() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    assert "--install-completion" in text


def test_commands() -> None:
    assert {"run", "compare", "report", "env"} <= set(complete("clbench "))
    assert complete("clbench comp") == ["compare"]


def test_methods_and_benchmarks() -> None:
    assert complete("clbench run --method ") == registry.method_names()
    assert complete("clbench run --method nu") == ["nusa"]
    assert complete("clbench run --benchmark cifar100-1") == ["cifar100-10step"]
    assert set(complete("clbench run --benchmark m")) == {
        name for name in registry.benchmark_names() if name.startswith("m")
    }
    assert complete("clbench run --benchmark fol") == ["folder:"]


def test_lists_are_completed_at_their_last_name() -> None:
    assert complete("clbench compare --methods nusa,lo") == ["nusa,lora"]
    assert "lora,lora" not in complete("clbench compare --methods lora,")
    assert complete("clbench run --logger csv,w") == ["csv,wandb"]
    assert complete("clbench report runs --compare nu") == ["nusa"]


def test_all_settings_of_a_run_are_offered() -> None:
    offered = complete("clbench run --set ")
    keys = {text.partition("=")[0] for text in offered}
    assert {f"train.{name}" for name in RunSettings().train.model_dump()} <= keys
    assert {"precision", "deterministic", "checkpoint_every.steps", "backbone.weights"} <= keys
    assert {"method.rank", "benchmark.shots"} <= keys
    assert not keys & {"method.params", "method.name", "benchmark.options", "train", "backbone"}


def test_settings_come_with_their_values_or_their_default() -> None:
    assert complete("clbench run --set train.sch") == [
        "train.schedule=cosine",
        "train.schedule=linear",
        "train.schedule=constant",
    ]
    assert complete("clbench run --set determ") == ["deterministic=true", "deterministic=false"]
    assert complete("clbench run --set train.warm") == ["train.warmup=100"]
    assert complete("clbench run --set train.clip") == ["train.clip_grad_norm=null"]
    assert complete("clbench run --set train.betas") == ["train.betas="]
    assert complete("clbench run --set unknown.") == []


def test_hyper_parameters_are_those_of_the_method_that_was_named() -> None:
    assert complete("clbench run --method gnsp --set method.proj") == [
        "method.projection=gradient",
        "method.projection=update",
        "method.projection=none",
    ]
    assert complete("clbench run --method finetune --set method.rank") == []
    several = complete("clbench compare --methods lora,gnsp --set method.")
    assert {"method.rank=128", "method.projection=update"} <= set(several)
    assert complete("clbench run --benchmark cifar100-10step --set benchmark.proto") == [
        "benchmark.protocol=clean",
        "benchmark.protocol=published",
    ]


def test_a_method_that_does_not_exist_offers_nothing_and_does_no_harm() -> None:
    assert complete("clbench run --method no.such:Thing --set method.") == []


def test_all_shells_are_given_the_meaning_of_a_setting() -> None:
    environment = {
        "_CLBENCH_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "clbench run --set train.batch",
    }
    outcome = CliRunner().invoke(app, [], prog_name="clbench", env=environment)
    assert "train.batch_size=64" in outcome.stdout
    assert "Images per step" in outcome.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with runs, collected results and other things."""
    for name in ("runs/mini/nusa/seed0-aa", "runs/mini/lora/seed1-bb", "other/deep/er/seed2-cc"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "result.json").touch()
    for name in ("runs/mini/nusa/unfinished", "runs/.hidden/seed3-dd", "runs/my runs/seed4-ee"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/.hidden/seed3-dd", "runs/my runs/seed4-ee"):
        (tmp_path / name / "result.json").touch()
    (tmp_path / "report/results").mkdir(parents=True)
    for name in ("report/results/nusa-seed0.json", "report/other.json"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command", ["verify", "rerun", "report", "show", "env", "dashboard --entity me"]
)
def test_run_directories(command: str, place: Path) -> None:
    found = ["runs/mini/lora/seed1-bb", "runs/mini/nusa/seed0-aa"]
    assert complete(f"clbench {command} runs/") == found
    assert complete(f"clbench {command} runs/mini/n") == found[1:]


def test_run_directories_anywhere(place: Path) -> None:
    assert completion.runs("") == ["runs/mini/lora/seed1-bb", "runs/mini/nusa/seed0-aa"]
    assert completion.runs("oth") == ["other/deep/er/seed2-cc"]
    assert completion.runs("./oth") == ["./other/deep/er/seed2-cc"]
    assert completion.runs(f"{place}/oth") == [f"{place}/other/deep/er/seed2-cc"]
    assert completion.runs("rep") == ["report/results/nusa-seed0.json"]
    assert completion.runs("nowhere/") == []
    assert completion.runs("~nobody-of-that-name/") == []


def test_a_huge_tree_is_not_walked_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    entries = completion._entries
    monkeypatch.setattr(completion, "_entries", lambda f: asked.append(f) or entries(f))
    monkeypatch.setattr(completion, "VISITED", 3)
    completion.runs("runs/")
    assert len(asked) == 3


def test_data_sets_and_kinds() -> None:
    assert complete("clbench data prepare Ox") == ["OxfordPet"]
    assert complete("clbench list rec") == ["recipes"]
    assert complete("clbench show methods/lo") == ["methods/lora"]


def test_names_are_completed_without_loading_torch() -> None:
    code = (
        "import sys; from clbench.cli import completion as c; "
        "c.methods(''), c.benchmarks(''), c.names(''), c.runs(''), c.data_sets(''); "
        "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
