"""`clbench verify`, `rerun` and `show` on finished runs, sound and tampered with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from clbench.cli.app import app
from clbench.core.results.correctness import read_rows, row_file, write_row
from clbench.core.results.manifest import write_manifest
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import AccuracyRecord, RunResult
from clbench.report.run_files import collect
from clbench.trackers.csv_file import losses_csv


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def sound(quick_runs: Path) -> Path:
    """A smoke run."""
    (run,) = (quick_runs / "mini" / "nusa").iterdir()
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
        "configuration:",
        "matrix.csv:",
        "directory:",
        "config.yaml:",
        "metrics.jsonl:",
        "metrics.csv:",
        "checkpoint:",
        "manifest:",
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


def raise_it_and_delete_the_record(run: Path) -> None:
    raise_an_accuracy(run)
    shutil.rmtree(run / "correct")


def change_result(**changes: object) -> Callable[[Path], None]:
    """Another result, with a hash that agrees."""

    def change(run: Path) -> None:
        RunResult.load(run).model_copy(update=changes).save(run / "result.json")

    return change


def claim_another_method(run: Path) -> None:
    result = RunResult.load(run)
    method = result.method.model_copy(update={"name": "lora"})
    result.model_copy(update={"method": method}).save(run / "result.json")


def claim_another_rank(run: Path) -> None:
    result = RunResult.load(run)
    method = result.method.model_copy(update={"params": result.method.params | {"rank": 2}})
    result.model_copy(update={"method": method}).save(run / "result.json")


def change_a_setting(run: Path) -> None:
    """In the result and in the file, but not in the hash that names the run."""
    result = RunResult.load(run)
    result.config["train"]["lr"] = 0.5
    result.save(run / "result.json")
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["train"]["lr"] = 0.5
    path.write_text(yaml.safe_dump(content))


def change_losses(**values: object) -> Callable[[Path], None]:
    """Of the last record, in both files that hold losses."""

    def change(run: Path) -> None:
        path = run / "metrics.jsonl"
        *first, last = path.read_text().splitlines()
        record = json.dumps(json.loads(last) | values)
        path.write_text("".join(f"{line}\n" for line in [*first, record]))
        (run / "metrics.csv").write_text(losses_csv(RunResult.load(run), run))

    return change


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
        (raise_it_and_delete_the_record, "images: the per-image record is missing", None),
        (claim_another_method, "method.name is lora in the result, nusa in its", None),
        (claim_another_rank, "configuration: method.params is", None),
        (change_result(seed=4), "configuration: seed is 4 in the result, 0 in its", None),
        (change_result(status="complete"), "configuration: quick is False", None),
        (change_result(config_hash="00000000"), "its hash is not that of the result", None),
        (change_a_setting, "configuration: its hash is not that of the result", None),
        (change_losses(loss=0.25), "metrics.jsonl: step 4 of textures: the loss is 0.25", None),
        (change_losses(lr=0.25), "of textures: the learning rate is 0.25, the settings", None),
        (edit_text("metrics.csv", "0.", "0.9"), "metrics.csv: differs from metrics.jsonl", None),
        (edit_text("log.txt", "nusa", "lora"), "log.txt is not the file that the run", None),
        (edit_text("table.md", "nusa", "lora"), "table.md is not the file that the run", None),
        (lambda run: (run / "log.txt").unlink(), "log.txt is missing", None),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv is missing", None),
        (lambda run: (run / "manifest.json").unlink(), "manifest: missing", None),
        (edit_text("manifest.json", '"bytes": ', '"bytes": 1'), "manifest.json is not what", None),
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
    run: Path, tamper: Callable[[Path], None], expected: str, refused_by_report: bool | None
) -> None:
    """None: a report is not about that."""
    tamper(run)
    outcome = invoke("verify", run)
    assert outcome.exit_code == 2, outcome.output
    wrong = [line for line in outcome.output.splitlines() if "WRONG" in line]
    assert any(expected in line for line in wrong), wrong
    assert "1 of the runs cannot be trusted" in outcome.stderr
    if refused_by_report is None:
        return
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
    manifest, wrong = [line for line in outcome.stdout.splitlines() if "WRONG" in line]
    assert "manifest: checkpoints/task-011.json is not" in manifest
    assert "answers of the last row differ" in wrong


def test_collected_results_are_verified_too(sound: Path, tmp_path: Path) -> None:
    collect([(sound / "result.json", RunResult.load(sound))], tmp_path)
    (file,) = tmp_path.glob("*.json")
    assert invoke("verify", file).exit_code == 0
    file.with_suffix(".bits").unlink()
    outcome = invoke("verify", file)
    assert outcome.exit_code == 2
    assert "WRONG images: the per-image record is missing" in outcome.output


def test_a_collected_result_with_another_configuration_is_found(
    sound: Path, tmp_path: Path
) -> None:
    collect([(sound / "result.json", RunResult.load(sound))], tmp_path)
    (file,) = tmp_path.glob("*.json")
    result = RunResult.load(file)
    result.config["train"]["lr"] = 0.5
    result.save(file)
    outcome = invoke("verify", file)
    assert outcome.exit_code == 2
    assert "WRONG configuration: its hash is not that of the result" in outcome.output


def test_an_earlier_schema_promises_less(run: Path) -> None:
    change_result(schema_version=2)(run)
    (run / "manifest.json").unlink()
    outcome = invoke("verify", run)
    assert outcome.exit_code == 0, outcome.output
    assert "none: written by an older version" in outcome.output


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_a_signature_shows_what_agreeing_files_hide(run: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "key", tmp_path / "key.pub"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make, check=True)
    outcome = invoke("verify", run, "--key", public)
    assert outcome.exit_code == 2
    assert "WRONG signature: missing" in outcome.output
    signed = invoke("verify", run, "--sign", key)
    assert signed.exit_code == 0, signed.output
    assert signed.output.splitlines()[-1] == f"  signed with {key}"
    assert invoke("verify", run, "--key", public).exit_code == 0
    with (run / "log.txt").open("a") as file:
        file.write("nothing happened\n")
    write_manifest(run)
    assert invoke("verify", run).exit_code == 0
    outcome = invoke("verify", run, "--key", public)
    assert outcome.exit_code == 2
    assert "WRONG signature: not one of" in outcome.output


def test_a_run_that_is_not_sound_is_not_signed(run: Path, tmp_path: Path) -> None:
    flip_a_weight(run)
    outcome = invoke("verify", run, "--sign", tmp_path / "never looked at")
    assert outcome.exit_code == 2
    assert "cannot be trusted" in outcome.stderr
    assert "signed" not in outcome.stdout


def test_a_collected_result_has_no_signature(sound: Path, tmp_path: Path) -> None:
    collect([(sound / "result.json", RunResult.load(sound))], tmp_path)
    (file,) = tmp_path.glob("*.json")
    outcome = invoke("verify", file, "--key", tmp_path / "key.pub")
    assert outcome.exit_code == 2
    assert "only run directories have one" in outcome.output


RUN = ("run", "--method", "nusa", "--quick", "-q", "--runs-dir")


def runs_dir(run: Path, tmp_path: Path) -> Path:
    """The run where the command that made it looks for it."""
    home = tmp_path / "runs" / "mini" / "nusa"
    home.mkdir(parents=True)
    run.rename(home / run.name)
    return tmp_path / "runs"


def test_what_a_process_left_undone_after_the_last_test_is_done(run: Path, tmp_path: Path) -> None:
    """It was killed after it wrote the result: tables are those of the task before."""
    good = {name: (run / name).read_bytes() for name in ("matrix.csv", "table.md", "metrics.csv")}
    (run / "manifest.json").unlink()
    for name in good:
        (run / name).write_text("of the task before")
    for path in (run / "checkpoints").iterdir():
        shutil.copy(path, path.with_name(path.name.replace("011", "010")))
    folder = runs_dir(run, tmp_path)
    outcome = invoke(*RUN, folder)
    assert outcome.exit_code == 0, outcome.output
    (found,) = (folder / "mini" / "nusa").iterdir()
    assert {name: (found / name).read_bytes() for name in good} == good
    assert len([*(found / "checkpoints").iterdir()]) == 2
    assert invoke("verify", found).exit_code == 0


def test_a_finished_run_is_not_sealed_again(run: Path, tmp_path: Path) -> None:
    (run / "log.txt").write_text("edited")
    folder = runs_dir(run, tmp_path)
    assert invoke(*RUN, folder).exit_code == 0
    assert invoke("verify", folder).exit_code == 2


@pytest.mark.slow  # images cannot be cached
def test_a_finished_run_on_a_read_only_disk_can_be_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs_dir(run, tmp_path)
    (found,) = (folder / "mini" / "nusa").iterdir()
    (found / ".lock").touch()

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    monkeypatch.setattr("pathlib.Path.touch", refuse)
    outcome = invoke(*RUN, folder)
    assert outcome.exit_code == 0, outcome.output
    assert "nusa" in outcome.output
    assert invoke("show", found).exit_code == 0
    assert invoke("verify", found).exit_code == 0
    (found / "manifest.json").unlink()
    outcome = invoke(*(part for part in RUN if part != "-q"), folder)
    assert outcome.exit_code == 0, "what is left to do is only told"
    assert "cannot write to the run directory" in " ".join(outcome.output.split())


def test_a_damaged_result_says_how_to_go_on(run: Path, tmp_path: Path) -> None:
    cut("result.json", 9)(run)
    folder = runs_dir(run, tmp_path)
    outcome = invoke(*RUN, folder)
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert "not valid JSON" in line
    assert "the checkpoint task-011 beside it is sound" in line
    assert "--fresh starts it anew" in line


@pytest.mark.slow
def test_rerun_repeats_the_numbers_elsewhere(sound: Path, run: Path, tmp_path: Path) -> None:
    outcome = invoke("rerun", sound, "--runs-dir", tmp_path, "-q")
    assert outcome.exit_code == 0, outcome.output
    assert "every accuracy and every loss is the same, bit for bit" in outcome.output
    again = RunResult.load(tmp_path / "mini" / "nusa" / sound.name)
    assert again.accuracy == RunResult.load(sound).accuracy
    change_losses(loss=0.25)(run)
    outcome = invoke("rerun", run, "--runs-dir", tmp_path, "-q")
    assert outcome.exit_code == 0, outcome.output
    assert "1 of 11 records of losses differ, by up to " in outcome.output


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
