"""result.json: what is written is what is read, and nothing inconsistent is accepted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clbench.core.errors import ClbenchError
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import READABLE, AccuracyRecord, BenchmarkRecord, RunResult
from clbench.core.task import Benchmark, ClassTexts, Setting, Task

SAMPLE = Path(__file__).parents[2] / "data" / "result.json"


@pytest.fixture
def content() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SAMPLE.read_text())
    return loaded


def test_the_file_keeps_the_keys_that_other_tools_read(content: dict[str, Any]) -> None:
    assert list(content) == [
        "schema",
        "status",
        "benchmark",
        "method",
        "backbone",
        "seed",
        "accuracy",
        "summary",
        "footprint",
        "cost",
        "config",
        "config_hash",
        "data",
        "provenance",
    ]
    result = RunResult.load(SAMPLE)
    assert result.benchmark.setting is Setting.TASK_GIVEN
    assert result.summary["transfer"] == 0.475
    assert json.loads(result.to_json()) == content


def test_saving_gives_the_committed_bytes(tmp_path: Path) -> None:
    result = RunResult.load(SAMPLE)
    result.save(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_bytes() == SAMPLE.read_bytes()
    assert RunResult.load(tmp_path) == result, "a run directory is as good as its file"


def test_matrix_has_names_counts_and_setting() -> None:
    matrix = RunResult.load(SAMPLE).matrix
    assert matrix.tasks == ("arrows", "clocks", "flags")
    assert matrix.counts == (100, 200, 50)
    assert matrix.values[3].tolist() == [0.6, 0.8, 1.0]
    assert matrix.complete


def test_numbers_are_written_exactly_and_matrices_by_rows(content: dict[str, Any]) -> None:
    third = 1 / 3
    matrix = AccuracyMatrix(("arrows", "clocks", "flags"), [[third] * 3] * 4, (100, 200, 50))
    content["accuracy"]["values"] = matrix.to_lists()
    content["summary"] = matrix.summary()
    content["method"]["params"] = {"decay": third}
    text = RunResult.model_validate(content).to_json()
    written = json.loads(text)
    assert written["summary"]["last"] == third
    assert written["method"]["params"]["decay"] == third
    assert text.count(f"\n      [{third}, {third}, {third}]") == 4, "a line per row"
    assert RunResult.model_validate(written).to_json() == text, "reading and writing adds nothing"


def test_strings_that_look_like_lists_are_written_unchanged(content: dict[str, Any]) -> None:
    content["provenance"] = {"note": "[\n  1,\n  2\n]", "brackets": ["[", "]", "1"]}
    assert json.loads(RunResult.model_validate(content).to_json()) == content


def test_an_interrupted_run_is_partial(content: dict[str, Any]) -> None:
    content["accuracy"]["values"][3] = [None, None, None]
    content["summary"] |= {
        "average": None,
        "last": None,
        "learned": None,
        "forgetting": None,
        "backward_transfer": None,
    }
    content["status"] = "partial"
    result = RunResult.model_validate(content)
    assert result.matrix.learned == 2
    assert json.loads(result.to_json())["accuracy"]["values"][3] == [None, None, None]
    with pytest.raises(ValidationError, match="accuracies end after 2 of 3 tasks"):
        RunResult.model_validate(content | {"status": "complete"})


def test_records_are_made_from_the_objects_they_describe() -> None:
    task = Task("pets", ClassTexts.from_templates(["cat"], ["a {}."]))
    record = BenchmarkRecord.of(Benchmark("one", 3, Setting.TASK_HIDDEN, "II", (task,)))
    assert record.model_dump(mode="json") == {
        "name": "one",
        "version": 3,
        "setting": "task-hidden",
        "order": "II",
        "tasks": ["pets"],
    }
    matrix = AccuracyMatrix.empty(["pets"], [7]).with_row(0, [0.5])
    assert AccuracyRecord.of(matrix).model_dump(mode="json") == {
        "values": [[0.5], [None]],
        "counts": [7],
    }
    with pytest.raises(ValueError, match="number of test images"):
        AccuracyRecord.of(AccuracyMatrix.empty(["pets"]))


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("summary", "last", to=0.81), "summary.last is 0.81, the accuracies give 0.8"),
        (_set("summary", "transfer", to=None), "summary.transfer is None, the"),
        (_set("summary", "last", to=0.8 + 2e-9), "summary.last is"),
        (_set("summary", to={"last": 0.8}), "summary needs exactly the keys transfer, average"),
        (_set("accuracy", "values", 0, to=[0.1, 0.2]), "3 tasks need 4 rows of 3 accuracies"),
        (_set("accuracy", "values", 3, 2, to=80.0), "accuracy.values.3.2: .*less than or equal"),
        (_set("accuracy", "counts", to=[1, 2]), "every task needs a count"),
        (_set("benchmark", "tasks", to=["a", "b"]), "2 tasks need 3 rows"),
        (_set("benchmark", "setting", to="open"), "benchmark.setting: .*'task-given'"),
        (_set("status", to="done"), "status: .*'complete', 'partial' or 'quick'"),
        (_set("method", "colour", to="red"), "method.colour: Extra inputs"),
        (_set("cost", "steps", to=-1), "cost.steps: "),
        (_drop("seed"), "seed: Field required"),
        (_drop("schema"), "is not a result file"),
        (_set("schema", to=5), "has schema 5 but this version of clbench reads 1, 2, 3, 4"),
        (_set("schema", to=2), "was edited or damaged"),
        (_set("sha256", to="0" * 64), "was edited or damaged"),
    ],
)
def test_inconsistent_files_are_one_clear_line(
    tmp_path: Path,
    content: dict[str, Any],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(ClbenchError, match=message) as caught:
        RunResult.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged, not valid JSON"),
        ('{"schema": 1, "seed": NaN}', "NaN is no JSON number"),
        ('{"schema": 1', "damaged, not valid JSON"),
        ("[]", "is not a result file"),
        ('{"schema": 1}', r"status: Field required \(and \d+ more problems\)"),
        (b"\xff\xfe", "damaged"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ClbenchError, match=message):
        RunResult.load(path)


def test_missing_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"there is no result file .*result\.json"):
        RunResult.load(tmp_path)
    with pytest.raises(ClbenchError, match="there is no result file"):
        RunResult.load(tmp_path / "nowhere.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ClbenchError, match="cannot read"):
        RunResult.load(tmp_path / "file" / "result.json")


def test_effective_rank_is_optional_and_has_a_value_per_row(content: dict[str, Any]) -> None:
    assert RunResult.model_validate(content).effective_rank is None
    content["effective_rank"] = {"energy": 0.95, "values": {"text": [0.5, 0.6, None, 0.7]}}
    result = RunResult.model_validate(content)
    assert json.loads(result.to_json())["effective_rank"] == content["effective_rank"]
    content["effective_rank"]["values"]["text"].pop()
    with pytest.raises(ValidationError, match="as many values as the accuracies have rows"):
        RunResult.model_validate(content)


@pytest.mark.parametrize("sample", sorted((SAMPLE.parent / "results").glob("schema-*.json")))
def test_files_of_every_schema_are_read_and_written_back_as_they_were(
    sample: Path, tmp_path: Path
) -> None:
    result = RunResult.load(sample)
    assert sample.name.startswith(f"schema-{result.schema_version}")
    assert result.summary["last"] == 0.8
    assert result.summary["learned"] == pytest.approx(0.9), "computed where the file lacks it"
    result.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == sample.read_bytes()


def test_there_is_a_sample_of_every_schema() -> None:
    names = {path.name[: len("schema-1")] for path in (SAMPLE.parent / "results").iterdir()}
    assert names == {f"schema-{number}" for number in READABLE}


@pytest.mark.parametrize(
    "change",
    [
        _set("seed", to=7),
        _set("cost", "steps", to=1),
        _set("provenance", "python", to="9.9"),
        _drop("sha256"),
        _set("method", "params", to={}),
    ],
)
def test_an_edit_of_any_value_is_noticed(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    edited = json.loads((SAMPLE.parent / "results" / "schema-2.json").read_text())
    change(edited)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(edited))
    with pytest.raises(ClbenchError, match="was edited or damaged"):
        RunResult.load(path)


def test_another_layout_of_the_same_content_is_no_edit(tmp_path: Path) -> None:
    content = json.loads((SAMPLE.parent / "results" / "schema-2.json").read_text())
    path = tmp_path / "result.json"
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert RunResult.load(path) == RunResult.load(SAMPLE.parent / "results" / "schema-2.json")


def test_brackets_without_end_are_damage_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 100_000)
    with pytest.raises(ClbenchError, match="damaged, not valid JSON"):
        RunResult.load(tmp_path)


def test_a_result_knows_where_it_lies_and_is_equal_elsewhere(
    content: dict[str, Any], tmp_path: Path
) -> None:
    result = RunResult.model_validate(content)
    assert result.path is None
    result.save(tmp_path / "run" / "result.json")
    assert result.path == tmp_path / "run", "a run directory by its folder"
    result.save(tmp_path / "collected.json")
    assert result.path == tmp_path / "run", "where it was written first"
    collected = RunResult.load(tmp_path / "collected.json")
    assert collected.path == tmp_path / "collected.json"
    assert RunResult.load(tmp_path / "run").path == tmp_path / "run"
    assert collected == result
    assert collected != result.model_copy(update={"seed": result.seed + 1})
    assert str(tmp_path) not in collected.to_json()


def test_a_result_prints_as_one_line(content: dict[str, Any]) -> None:
    text = repr(RunResult.model_validate(content))
    assert "\n" not in text
    assert "nusa on mini, seed 0, complete: transfer 47.5 %" in text
