"""What W&B records offline equals what the run directory says."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.core.task import Setting
from clbench.trackers.heatmap import heatmap_image
from clbench.trackers.wandb import ARTIFACT_FILES, State, WandbTracker, summary_fields
from tests.fixtures import WANDB_KEY
from tests.made_up import INCREMENTAL, TASKS, VALUES, MakeResult
from tests.trackers.wandb_file import RecordedRun, read_runs

START = 1_700_000_000
STEPS = 40
LOSSES = [(20, 1.5), (40, 1.25)]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, wandb_offline: dict[str, str]) -> None:
    for name, value in wandb_offline.items():
        monkeypatch.setenv(name, value)
    # Folders of offline runs are named by the second, and these runs take less.
    minutes = itertools.count(START, 60)
    monkeypatch.setattr("wandb.sdk.wandb_init.time", SimpleNamespace(time=lambda: next(minutes)))


@pytest.fixture(autouse=True)
def _quick_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest of these tests; one of them does it."""
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr("clbench.trackers.wandb.heatmap_image", lambda result: dot)


@pytest.fixture
def after(make_result: MakeResult) -> Callable[[int], RunResult]:
    """The result after so many of three tasks."""

    def result(learned: int) -> RunResult:
        values = [row if t <= learned else [None] * 3 for t, row in enumerate(VALUES)]
        status = "complete" if learned == 3 else "partial"
        return make_result(values=values, status=status, steps=STEPS * learned)

    return result


class Run:
    """A made-up run in a folder, told to a tracker as the engine tells it."""

    def __init__(self, folder: Path, after: Callable[[int], RunResult]) -> None:
        self.folder = folder
        self.after = after
        self.notes: list[str] = []
        folder.mkdir()
        for name in ("result.json", "matrix.csv"):
            (folder / name).write_text("{}")

    def go(self, first: int, last: int, *, interrupted: bool = False) -> WandbTracker:
        """Run from after `first` tasks to after `last`; if interrupted, into the next task."""
        tracker = WandbTracker(self.notes.append)
        tracker.begin(self.after(first), self.folder)
        for task in range(first, last):
            self.train(tracker, task)
            tracker.row(self.after(task + 1))
        if interrupted:
            tracker.losses(STEPS * last + LOSSES[0][0], {"loss": LOSSES[0][1], "lr": 0.1})
        tracker.end(finished=last == 3)
        return tracker

    def train(self, tracker: WandbTracker, task: int) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            for step, loss in LOSSES:
                record = {"task": task + 1, "step": step, "lr": 0.1, "loss": loss + task}
                file.write(json.dumps(record) + "\n")
                tracker.losses(STEPS * task + step, {"lr": 0.1, "loss": loss + task})

    def recorded(self) -> list[RecordedRun]:
        return read_runs(self.folder)


@pytest.fixture
def run(tmp_path: Path, after: Callable[[int], RunResult]) -> Run:
    return Run(tmp_path / "run", after)


def rows(*runs: RecordedRun) -> list[tuple[int, list[Any]]]:
    """Task index and accuracies of every recorded row of the matrix."""
    history = [point for run in runs for point in run.history if "task" in point]
    return [(point["task"], [point.get(f"accuracy/{t}") for t in TASKS]) for point in history]


def losses(*runs: RecordedRun) -> list[tuple[int, float]]:
    history = [point for run in runs for point in run.history if "train/loss" in point]
    return [(point["step"], point["train/loss"]) for point in history]


EXPECTED_LOSSES = [(20, 1.5), (40, 1.25), (60, 2.5), (80, 2.25), (100, 3.5), (120, 3.25)]


def test_an_offline_run_equals_the_result(run: Run) -> None:
    run.go(0, 3)
    (found,) = run.recorded()
    result = run.after(3)
    assert rows(found) == [(t, list(row)) for t, row in enumerate(result.accuracy.values)]
    assert losses(found) == EXPECTED_LOSSES
    over_tasks = dict.fromkeys(("accuracy/*", "matrix/*", "probe/*"), "task")
    assert found.axes == {**over_tasks, "train/*": "step"}
    assert {key: found.summary[key] for key in result.summary} == result.summary
    assert {key: found.summary[key] for key in summary_fields(result)} == summary_fields(result)
    assert found.summary["cost/steps"] == 120
    assert found.exit_code == 0


def test_a_run_is_found_by_group_job_type_and_tags(run: Run) -> None:
    run.go(0, 3)
    (found,) = run.recorded()
    assert (found.run.project, found.run.display_name) == ("clbench", "nusa-seed0")
    assert (found.run.run_group, found.run.job_type) == ("mini", "nusa")
    assert list(found.run.tags) == ["order:I", "seed:0", "setting:task-given"]
    result = run.after(0)
    assert found.config["settings"] == result.config
    assert found.config["config_hash"] == result.config_hash
    assert found.config["benchmark"]["tasks"] == list(TASKS)


def test_the_matrix_is_a_table_and_an_image_after_every_task(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clbench.trackers.wandb.heatmap_image", heatmap_image)
    run.go(0, 3)
    (found,) = run.recorded()
    points = [point for point in found.history if "task" in point]
    assert [point["matrix/table._type"] for point in points] == ["table-file"] * 4
    assert [point["matrix/image._type"] for point in points] == ["image-file"] * 4
    (folder,) = run.folder.glob("wandb/offline-run-*/files")
    table = json.loads((folder / points[-1]["matrix/table.path"]).read_text())
    assert table["columns"] == ["after", *TASKS]
    named = zip(["zero-shot", *TASKS], VALUES, strict=True)
    assert table["data"] == [[name, *row] for name, row in named]
    with Image.open(folder / points[-1]["matrix/image.path"]) as image:
        assert min(image.size) > 100


def test_the_result_files_are_an_artifact(run: Run) -> None:
    (run.folder / "secret.txt").write_text("")
    run.go(0, 3)
    (found,) = run.recorded()
    (artifact,) = [one for one in found.artifacts if one.type == "result"]
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {"result.json", "matrix.csv", "metrics.jsonl"}
    assert names <= set(ARTIFACT_FILES)


def test_a_resumed_run_continues_the_same_one(run: Run) -> None:
    run.go(0, 1, interrupted=True)
    run.go(1, 3)
    first, second = run.recorded()
    assert first.run.run_id == second.run.run_id == State.load(run.folder).id
    assert [t for t, _ in rows(first)] == [0, 1]
    assert [t for t, _ in rows(second)] == [2, 3]
    assert losses(first)[-1] == (losses(second)[0][0], 1.5)
    assert losses(first)[:-1] + losses(second) == EXPECTED_LOSSES
    assert (first.exit_code, second.exit_code) == (1, 0)


def test_points_logged_twice_fall_on_the_same_place(run: Run) -> None:
    run.go(0, 1, interrupted=True)
    run.go(1, 3)
    first, second = run.recorded()
    places = [[p["_step"] for p in one.history] for one in (first, second)]
    assert places[0] == [0, 20, 40, 41, 61]
    assert places[1] == [61, 81, 82, 102, 122, 123]


def test_a_run_tracked_late_is_complete(run: Run) -> None:
    tracker = WandbTracker(lambda text: None)
    for task in range(2):
        run.train(tracker, task)  # the engine's own record; the tracker has not begun
    run.go(2, 3)
    (found,) = run.recorded()
    assert [t for t, _ in rows(found)] == [0, 1, 2, 3]
    assert losses(found) == EXPECTED_LOSSES


def test_a_finished_run_is_not_logged_again(run: Run) -> None:
    run.go(0, 3)
    run.go(3, 3)
    assert len(run.recorded()) == 1


def test_missing_accuracies_stay_missing(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result(values=INCREMENTAL, setting=Setting.CLASS_INCREMENTAL)
    run = Run(tmp_path / "run", lambda learned: result)
    run.go(3, 3)
    (found,) = run.recorded()
    assert rows(found)[1] == (1, [1.0, None, None])
    assert found.summary["transfer"] is None
    assert found.summary["average"] == result.summary["average"]


def test_offline_the_only_output_is_how_to_sync(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    run.go(0, 3)
    assert capfd.readouterr() == ("", "")
    (note,) = run.notes
    assert note.endswith(f"wandb sync {run.folder}/wandb/offline-run-*")


def test_the_key_is_written_nowhere(run: Run, wandb_offline: dict[str, str]) -> None:
    run.go(0, 3)
    elsewhere = Path(wandb_offline["WANDB_DATA_DIR"]).parent
    files = [p for top in (run.folder, elsewhere) for p in top.rglob("*") if p.is_file()]
    assert {".wandb", ".json"} <= {path.suffix for path in files}
    assert [path for path in files if WANDB_KEY.encode() in path.read_bytes()] == []


def test_without_a_usable_server_the_run_is_recorded_offline(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    original = wandb.init

    def init(**options: Any) -> Any:
        if options["mode"] != "offline":
            assert not sys.stdin.isatty()
            raise wandb.errors.UsageError("No API key configured.")
        return original(**options)

    monkeypatch.setattr(wandb, "init", init)
    run.go(0, 3)
    (found,) = run.recorded()
    assert len(rows(found)) == 4
    assert len(run.notes) == 1
    assert "No API key configured." in run.notes[0]
    assert "wandb sync" in run.notes[0]


def test_a_terminal_is_hidden_while_wandb_starts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B asks for a key where standard input is a terminal; here it would wait for ever."""
    import wandb

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            raise AssertionError("asked for input")

    seen: list[bool] = []

    def init(**options: Any) -> Any:
        seen.append(sys.stdin.isatty())
        raise OSError("no network")

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(OSError, match="no network"):
        run.go(0, 0)
    assert seen == [False, False]
    assert sys.stdin is terminal


def test_disabled_means_that_nothing_is_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    original = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **o: original(**{**o, "mode": "disabled"}))
    run.go(0, 3)
    assert run.recorded() == []
    assert run.notes == []
    assert not State.load(run.folder).finished


def test_an_upload_that_hangs_ends_with_a_note(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def finish(self: Any, exit_code: int | None = None) -> None:
        raise TimeoutError

    finish_run = wandb.Run.finish
    tracker = WandbTracker(run.notes.append)
    tracker.begin(run.after(3), run.folder)
    monkeypatch.setattr(wandb.Run, "finish", finish)
    tracker.end(finished=True)
    assert f"wandb sync {run.folder}/wandb/run-*" in run.notes[-1]
    assert not State.load(run.folder).finished
    monkeypatch.setattr(wandb.Run, "finish", finish_run)
    assert tracker._run is not None
    tracker._run.finish()


def test_a_damaged_state_file_starts_a_new_run(run: Run) -> None:
    (run.folder / "wandb.json").write_text("{")
    run.go(0, 0)
    assert len(State.load(run.folder).id) == 8


def test_the_logger_is_no_part_of_the_hash() -> None:
    names = RunSettings(logger=["wandb,csv", "wandb"])  # type: ignore[arg-type]
    assert names.logger == ("wandb", "csv")
    assert names.fingerprint() == RunSettings().fingerprint()
