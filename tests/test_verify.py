"""`clbench verify`, `rerun` and `show` on finished runs, sound and tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clbench.cli.app import app
from clbench.core.results.correctness import read_rows, row_file, write_row
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import AccuracyRecord, RunResult


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one smoke run."""
    folder = tmp_path_factory.mktemp("sound")
    outcome = invoke("run", "--method", "lora", "--quick", "-q", "--runs-dir", folder)
    assert outcome.exit_code == 0, outcome.output
    (run,) = (folder / "mini" / "lora").iterdir()
    return run


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to tamper with."""
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def test_a_sound_run_passes_also_when_tested_again(run: Path) -> None:
    outcome = invoke("verify", run, "--evaluate")
    assert outcome.exit_code == 0, outcome.output
    lines = outcome.output.splitlines()
    assert lines[0] == str(run)
    assert all(line.startswith("  ok ") for line in lines[1:])
    assert "0 of 374 answers of the last row differ" in lines[-1]
    checked = [line.split()[1] for line in lines[1:]]
    assert checked == [
        "result:",
        "images:",
        "matrix.csv:",
        "configuration:",
        "directory:",
        "config.yaml:",
        "metrics.jsonl:",
        "checkpoint:",
        "evaluation:",
    ]


def raise_an_accuracy(run: Path) -> None:
    """As a careful forger would: matrix, summary and hash agree."""
    result = RunResult.load(run)
    values = result.matrix.values.copy()
    values[11, 0] = 1.0
    matrix = AccuracyMatrix(
        result.matrix.tasks, values, result.matrix.counts, result.matrix.setting
    )
    accuracy = AccuracyRecord.of(matrix)
    forged = result.model_copy(update={"accuracy": accuracy, "summary": matrix.summary()})
    forged.save(run / "result.json")


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return edit


def flip_an_answer(run: Path) -> None:
    row = read_rows(run / "result.json")[3]
    row["flags"][0] = not row["flags"][0]
    write_row(run, 3, row)


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-size]) and None


def flip_a_weight(run: Path) -> None:
    (path,) = (run / "checkpoints").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("tamper", "expected", "refused_by_report"),
    [
        (raise_an_accuracy, "the matrix has 1", True),
        (edit_text("result.json", '"seed": 0', '"seed": 1'), "edited or damaged", True),
        (flip_an_answer, "row 3: ", True),
        (cut("correct/row-002.bits", 1), "row-002.bits is damaged", True),
        (cut("result.json", 9), "not valid JSON", True),
        (lambda run: row_file(run, 5).unlink(), "row 5 has no bits", True),
        (edit_text("matrix.csv", "0.", "0.9"), "matrix.csv", False),
        (edit_text("config.yaml", "rank: ", "rank: 1"), "config.yaml: missing or differs", False),
        (cut("metrics.jsonl", 40), "metrics.jsonl: damaged", False),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: missing", False),
        (flip_a_weight, "does not have the hash", False),
    ],
)
def test_whatever_was_tampered_with_is_found(
    run: Path, tamper: Callable[[Path], None], expected: str, refused_by_report: bool
) -> None:
    tamper(run)
    outcome = invoke("verify", run)
    assert outcome.exit_code == 2, outcome.output
    wrong = [line for line in outcome.output.splitlines() if "WRONG" in line]
    assert any(expected in line for line in wrong), wrong
    assert "1 of the runs cannot be trusted" in outcome.stderr
    report = invoke("report", run)
    assert report.exit_code == (2 if refused_by_report else 0)
    if refused_by_report:
        assert len(report.stderr.splitlines()) == 1


def test_a_run_under_another_name_is_found(run: Path) -> None:
    moved = run.rename(run.with_name("seed7-00000000"))
    outcome = invoke("verify", moved)
    assert outcome.exit_code == 2
    assert "seed7-00000000 is another's name" in outcome.output


def test_another_checkpoint_gives_other_answers(run: Path, sound: Path) -> None:
    import torch

    from clbench.engine.rundir.checkpoints import Checkpoint, CheckpointStore, Position

    store = CheckpointStore(run)
    good = store.load(Position(11))
    state = {
        name: torch.zeros_like(value) if name.endswith("proj.base.weight") else value
        for name, value in good.method.items()
    }
    store.save(Checkpoint(Position(11), state, good.counters))
    outcome = invoke("verify", run, "--evaluate")
    assert outcome.exit_code == 2
    (wrong,) = [line for line in outcome.stdout.splitlines() if "WRONG" in line]
    assert "answers of the last row differ" in wrong


def test_collected_results_are_verified_too(sound: Path, tmp_path: Path) -> None:
    assert invoke("report", sound, "--out", tmp_path).exit_code == 0
    file = tmp_path / "lora.json"
    shutil.copy(sound / "result.json", file)
    outcome = invoke("verify", file)
    assert outcome.exit_code == 0, outcome.output
    assert "no per-image record" in outcome.output


def test_rerun_repeats_the_numbers_elsewhere(sound: Path, tmp_path: Path) -> None:
    outcome = invoke("rerun", sound, "--runs-dir", tmp_path, "-q")
    assert outcome.exit_code == 0, outcome.output
    assert "every accuracy is the same, bit for bit" in outcome.output
    again = RunResult.load(tmp_path / "mini" / "lora" / sound.name)
    assert again.accuracy == RunResult.load(sound).accuracy


def test_rerun_of_what_no_longer_exists_is_one_line(run: Path) -> None:
    result = RunResult.load(run)
    result.config["method"]["params"]["gone"] = 1
    result.save(run / "result.json")
    outcome = invoke("rerun", run)
    assert outcome.exit_code == 2
    assert "unknown key 'method.gone'" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_show_prints_where_a_result_comes_from(sound: Path) -> None:
    shown = invoke("show", sound).output
    content = json.loads((sound / "result.json").read_text())
    for text in (
        content["config_hash"],
        content["backbone"]["fingerprint"],
        content["data"]["splits"]["arrows/train"],
        content["data"]["prompts"]["arrows"],
        content["provenance"]["started"],
        content["provenance"]["packages"]["numpy"],
        content["provenance"]["processor"].split()[0],
        "precision",
        "threads",
        "git.commit",
    ):
        assert text in shown, text
    assert invoke("show", sound / "result.json").output == shown


def test_everything_that_decides_a_number_is_recorded(sound: Path) -> None:
    content = json.loads((sound / "result.json").read_text())
    provenance = content["provenance"]
    assert {"torch", "numpy", "lightning", "safetensors", "clbench"} <= provenance[
        "packages"
    ].keys()
    assert len(provenance["packages"]) > 40, "indirect requirements too"
    assert provenance["threads"] > 0
    assert provenance["git"] is None or len(provenance["git"]["commit"]) == 40
    assert {"started", "ended", "resumed", "device", "instructions", "cuda"} <= provenance.keys()
    assert content["config"]["precision"] == "fp32"
    assert len(content["data"]["splits"]) == 22
    assert len(content["data"]["prompts"]) == 11
