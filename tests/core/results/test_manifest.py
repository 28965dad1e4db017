"""The manifest of a run names every file, and any edit of one of them shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.files import content_hash
from clbench.core.results.manifest import check_manifest, covered, write_manifest
from clbench.core.results.soundness import Finding
from tests.made_up import make_result

FILES = [
    "config.yaml",
    "log.txt",
    "matrix.csv",
    "metrics.csv",
    "metrics.jsonl",
    "result.json",
    "table.md",
    "checkpoints/task-003.json",
    "checkpoints/task-003.safetensors",
    "correct/row-000.bits",
    "correct/row-001.bits",
]
OTHERS = [".lock", ".owner.json", "wandb.json", "tensorboard/events", "checkpoints/.x.tmp", "notes"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory with all that a run and its trackers write, sealed."""
    for name in (*FILES, *OTHERS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    write_manifest(tmp_path)
    return tmp_path


def found(run: Path) -> Finding:
    (finding,) = check_manifest(run, make_result())
    return finding


def test_every_file_of_a_run_is_named_and_nobody_elses(run: Path) -> None:
    assert covered(run) == FILES
    content = json.loads((run / "manifest.json").read_text())
    assert list(content["files"]) == FILES
    assert content["files"]["log.txt"]["bytes"] == len("content of log.txt")
    assert found(run) == Finding("manifest", "11 files are as the run wrote them")


@pytest.mark.parametrize("name", FILES)
def test_any_edit_of_any_file_shows(run: Path, name: str) -> None:
    path = run / name
    good = path.read_bytes()
    for bad in (good + b"\n", good[:-1], good[:-1] + b"!", b""):
        path.write_bytes(bad)
        expected = f"{name} is not the file that the run wrote"
        assert found(run) == Finding("manifest", expected, False)
    path.unlink()
    assert found(run) == Finding("manifest", f"{name} is missing", False)


@pytest.mark.parametrize("name", ["correct/row-004.bits", "checkpoints/task-009.json"])
def test_a_file_that_was_added_shows(run: Path, name: str) -> None:
    (run / name).touch()
    assert found(run) == Finding("manifest", f"{name} was added", False)


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_others_may_change(run: Path, name: str) -> None:
    (run / name).write_text("other")
    assert found(run).sound


def test_many_problems_are_not_all_listed(run: Path) -> None:
    for name in FILES[:5]:
        (run / name).unlink()
    text = found(run).text
    assert text == ("config.yaml is missing, log.txt is missing, matrix.csv is missing and 2 more")


def test_three_problems_are_all_listed(run: Path) -> None:
    for name in FILES[:3]:
        (run / name).unlink()
    assert found(run).text == "config.yaml is missing, log.txt is missing, matrix.csv is missing"


def reformatted(text: str) -> str:
    return text.replace("content", "CONTENT").replace('"log.txt"', '"log2.txt"')


def other_format(text: str) -> str:
    return json.dumps(json.loads(text) | {"format": "clbench-manifest/2"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (reformatted, "was edited or damaged"),
        (other_format, "was edited or damaged"),
        (lambda text: text[:-9], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: "{}", "is damaged"),
        (lambda text: json.dumps(sealed([])), "is damaged"),
        (lambda text: json.dumps(sealed({"log.txt": {}})), "is damaged"),
        (lambda text: json.dumps(sealed({"log.txt": 3})), "is damaged"),
        (lambda text: "[" * 50_000, "is damaged"),
    ],
)
def test_an_edited_manifest_shows(run: Path, change: Callable[[str], str], expected: str) -> None:
    path = run / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ClbenchError, match=expected):
        found(run)


def sealed(files: object) -> dict[str, object]:
    """A manifest with a hash that agrees."""
    return {"format": "clbench-manifest/1", "files": files, "sha256": content_hash(files)}


@pytest.mark.parametrize(
    ("schema", "status", "expected"),
    [
        (3, "complete", Finding("manifest", "missing", False)),
        (3, "quick", Finding("manifest", "missing", False)),
        (3, "partial", Finding("manifest", "none before the run is finished")),
        (2, "complete", Finding("manifest", "none: written by an older version")),
    ],
)
def test_a_manifest_is_missed_where_it_was_promised(
    schema: int, status: str, expected: Finding, tmp_path: Path
) -> None:
    result = make_result(status=status).model_copy(update={"schema_version": schema})
    assert list(check_manifest(tmp_path, result)) == [expected]


def test_a_file_that_cannot_be_read_is_one_error(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    before = (run / "manifest.json").read_bytes()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ClbenchError, match=r"cannot read the files of .*: Input/output error"):
        write_manifest(run)
    assert (run / "manifest.json").read_bytes() == before
