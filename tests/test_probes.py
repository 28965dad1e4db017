"""Probes from the command line and from Python, on whole runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import clbench
from clbench import registry
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.datamodules.probing import embedded
from tests.small_runs import write_tasks

OWN = """
from clbench.core.probe import Probe


class Count(Probe):
    name = "count"

    def measure(self, look):
        return {"learned": look.learned, "images": sum(map(len, look.test_sets))}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks, a probe, and a run that it looked at."""
    folder = tmp_path_factory.mktemp("probed")
    write_tasks(folder / "tasks")
    (folder / "own.py").write_text(OWN)
    outcome = run(folder, "--probe", f"gap,{folder / 'own.py'}:Count")
    assert outcome.exit_code == 0, outcome.output
    return folder


def run(place: Path, *arguments: object, command: str = "run") -> Result:
    options = ["--benchmark", f"folder:{place / 'tasks'}", "--backbone", "mini"]
    options += ["--root", str(place / "cache"), "--set", "device=cpu"]
    if command == "run":
        options += ["--runs-dir", str(place / "runs"), "--method", "finetune"]
        options += ["--set", "train.steps=2", "--set", "train.batch_size=6"]
    return CliRunner().invoke(app, [command, *options, *map(str, arguments)])


def result_of(place: Path) -> tuple[Path, RunResult]:
    (path,) = (place / "runs").rglob("result.json")
    return path.parent, RunResult.load(path)


def test_a_run_keeps_what_its_probes_found(place: Path) -> None:
    folder, result = result_of(place)
    assert result.probes["count"].values == {"learned": (0, 1, 2), "images": (24,) * 3}
    assert result.probes["gap"].values["negative_drift"][0] == 0
    shown = run(place, "-q")
    assert "Probe count" in shown.output
    outcome = CliRunner().invoke(app, ["verify", str(folder)])
    assert outcome.exit_code == 0, outcome.output
    assert "ok    probes.csv: agrees" in outcome.output


def test_a_changed_number_is_noticed(place: Path, tmp_path: Path) -> None:
    folder, _ = result_of(place)
    copy = shutil.copytree(folder, tmp_path / folder.name)
    table = copy / "probes.csv"
    table.write_text(table.read_text().replace("count,learned,2", "count,learned,3"))
    outcome = CliRunner().invoke(app, ["verify", str(copy)])
    assert "WRONG probes.csv: differs from the result" in outcome.output
    file = copy / "result.json"
    content = json.loads(file.read_text())
    content["probes"]["count"]["values"]["learned"] = [0, 1, 7]
    file.write_text(json.dumps(content))
    assert "edited or damaged" in CliRunner().invoke(app, ["verify", str(copy)]).output


def test_probes_are_no_part_of_what_a_run_is(place: Path) -> None:
    """The same directory, and word of what a complete run lacks."""
    plain = run(place)
    assert "already complete" in plain.stderr
    more = run(place, "--probe", "gap,calibration")
    assert more.exit_code == 0
    assert "made without probe calibration" in " ".join(more.stderr.split())
    assert "--fresh" in more.stderr
    result_of(place)  # still the only run


def test_unknown_probes_are_refused_at_once(place: Path) -> None:
    outcome = run(place, "--probe", "gaps")
    assert outcome.exit_code == 2
    assert "unknown probe 'gaps': did you mean 'gap'?" in outcome.stderr
    with pytest.raises(ClbenchError, match="is not a subclass"):
        registry.probe("clbench.methods.lora:LoRA")
    with pytest.raises(ClbenchError, match="there is no file"):
        registry.probe("nowhere.py:Probe")


def test_a_repeated_run_measures_the_same_and_imports_nothing_unasked(
    place: Path, tmp_path: Path
) -> None:
    folder, before = result_of(place)
    after, differences = clbench.rerun(folder, runs_dir=tmp_path, quiet=True)
    assert differences == []
    assert set(after.probes) == {"gap"}, "the other is code from elsewhere"
    assert after.probes["gap"].values == before.probes["gap"].values


def test_any_model_can_be_looked_at(place: Path) -> None:
    outcome = run(place, "--probe", "gap,calibration", "--json", "-q", command="evaluate")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)["probes"]
    _, result = result_of(place)
    assert found["gap"]["gap"] == result.probes["gap"].values["gap"][0]
    assert found["calibration"]["ece"] > 0
    shown = run(place, "--probe", "gap", "-q", command="evaluate")
    assert "negative_logit" in shown.stdout


def test_the_embedded_model_has_general_images_and_captions(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "GENERAL_SIZE", 24)
    monkeypatch.setattr(embedded, "CAPTIONED_SIZE", 24)
    probes = "general,retrieval,drift,spectrum"
    outcome = run(place, "--probe", probes, "--json", "-q", command="evaluate")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)["probes"]
    assert found["general"]["faces"] > 0.5
    assert found["retrieval"]["mini_t2i_r5"] > 0.5
    assert 0 < found["spectrum"]["principal_rank"] < 1
    assert "angle" not in found["spectrum"], "there is no model from before"


def test_what_a_probe_needs_is_looked_for_before_the_run(place: Path, tmp_path: Path) -> None:
    settings = {"backbone.weights": "random", "backbone.model": "ViT-S-32", "device": "cpu"}
    with pytest.raises(ClbenchError, match=r"needs images with captions(.|\n)*dataset_coco.json"):
        clbench.run(
            "zeroshot",
            f"folder:{place / 'tasks'}",
            probes="retrieval",
            settings={**settings, "data_root": str(tmp_path)},
            runs_dir=tmp_path / "runs",
            quiet=True,
        )
    assert not (tmp_path / "runs").exists()
