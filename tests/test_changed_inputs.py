"""A run is not reused for weights, images or prompts that were replaced under the same name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from clbench import api, config
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.datamodules import folder as folders
from clbench.engine.process.progress import QuietReporter
from clbench.engine.rundir.provenance import Inputs
from clbench.inputs import require_inputs
from tests.engine.rundir.test_resuming import Kill, Killed
from tests.small_runs import run_small, write_tasks

WEIGHTS = Path(folders.__file__).with_name("mini") / "clip.safetensors"


class Notes(QuietReporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Tasks and weights of the user's own; images are bitmaps, whose size says nothing."""
    tasks = write_tasks(tmp_path / "tasks")
    for path in tasks.rglob("*.png"):
        with Image.open(path) as image:
            image.save(path, "BMP")
    (tmp_path / "weights.safetensors").write_bytes(WEIGHTS.read_bytes())
    return tmp_path


def run(place: Path, method: str = "zeroshot", **options: Any) -> RunResult:
    weights = str(place / "weights.safetensors")
    return run_small(method, place / "tasks", place / "runs", backbone__weights=weights, **options)


def replace_weights(place: Path) -> None:
    path = place / "weights.safetensors"
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        metadata = file.metadata()
    state["visual.proj"] += 0.01
    size = path.stat().st_size
    save_file(state, path, metadata)
    assert path.stat().st_size == size


def replace_image(split: str) -> Callable[[Path], None]:
    def replace(place: Path) -> None:
        path = place / "tasks" / "task1" / split / "kind 1 0" / "3.png"
        size = path.stat().st_size
        with Image.open(path) as image:
            Image.fromarray(255 - np.asarray(image)).save(path, "BMP")
        assert path.stat().st_size == size

    return replace


def add_task(place: Path) -> None:
    write_tasks(place / "more", tasks=3)
    (place / "more" / "task2").rename(place / "tasks" / "task2")


CHANGES = {
    "weights": (replace_weights, r"the backbone's weights \(\w{16} is now \w{16}\)"),
    "training image": (replace_image("train"), r"the images of task1/train \(\w{16} is now"),
    "test image": (replace_image("test"), r"the images of task1/test \(\w{16} is now"),
    "new task": (add_task, r"the benchmark's tasks \(.*the images of task2/test \(none is now"),
}


def refused(place: Path, expected: str, reporter: Notes) -> None:
    with pytest.raises(ClbenchError, match=expected) as caught:
        run(place, reporter=reporter)
    assert "\n" not in str(caught.value)
    assert "add --fresh to start anew" in str(caught.value)
    assert reporter.texts == []


def test_a_complete_run_is_not_handed_out_for_other_inputs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, notes = run(place), Notes()
    for replace, expected in CHANGES.values():
        kept = shutil.copytree(place / "tasks", place / "kept")
        replace(place)
        refused(place, expected, notes)
        shutil.rmtree(place / "tasks")
        kept.rename(place / "tasks")
        (place / "weights.safetensors").write_bytes(WEIGHTS.read_bytes())
        assert run(place, reporter=notes).provenance == first.provenance, "put back"
        assert notes.texts.pop().startswith("already complete")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "check_templates", lambda templates: ["a sketch of a {}."])
        patch.setattr(folders, "VERSION", 99)
        refused(place, r"version \(2 is now 99\), the prompts of task0 \(.*of task1 \(", notes)
    replace_weights(place)
    anew = run(place, fresh=True)
    assert anew.config_hash == first.config_hash
    assert anew.backbone.fingerprint != first.backbone.fingerprint
    assert run(place).provenance == anew.provenance


@pytest.fixture
def sources(place: Path) -> dict[str, Any]:
    """Reference images and texts of the user's own, as settings of a method that uses both."""
    for number in range(6):
        path = place / "reference" / ("car" if number % 2 else "tree") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (30 * number, 90, 90)).save(path, "BMP")
    (place / "texts.txt").write_text("a red car\na tall tree\n")
    return {
        "method__reference": str(place / "reference"),
        "method__captions": str(place / "texts.txt"),
        "method__reference_batch": 2,
        "train__steps": 1,
    }


def test_reference_data_that_changed_are_noticed(place: Path, sources: dict[str, Any]) -> None:
    """When an interrupted run goes on, and when a complete one is asked for again."""

    def again() -> RunResult:
        return run(place, "zscl", reporter=notes, **sources)

    def refused(what: str) -> None:
        with pytest.raises(ClbenchError, match=f"since it began: {what}; add --fresh"):
            again()

    notes = Notes()
    image, texts = place / "reference" / "car" / "3.png", place / "texts.txt"
    pixels, lines = image.read_bytes(), texts.read_text()
    hashed = r"\(\w{16} is now \w{16}\)"
    with pytest.raises(Killed):
        run(place, "zscl", reporter=Kill(task=1, step=1), **sources)
    Image.new("RGB", (32, 32), (1, 2, 3)).save(image, "BMP")
    assert len(image.read_bytes()) == len(pixels)
    texts.write_text(lines.replace("red", "big"))
    refused(f"the reference images {hashed}, the reference texts {hashed}")
    image.write_bytes(pixels)
    texts.write_text(lines)
    complete = again()
    assert complete.status == "complete"
    image.rename(image.with_name("7.png"))
    refused(f"the reference images {hashed}")
    shutil.rmtree(place / "reference")
    with pytest.raises(ClbenchError, match=r"whether weights and images are still .*reference"):
        again()

    # Results of older versions have no hashes of them, and stay complete.
    assert complete.data.reference_hashes.keys() == {"images", "texts"}
    older = complete.data.model_copy(update={"reference_hashes": {}})
    assert complete.path is not None
    complete.model_copy(update={"data": older}).save(complete.path / "result.json")
    assert again().data.reference_hashes == {}
    assert notes.texts.pop().startswith("already complete")


def test_runs_of_fewer_tasks_are_no_measure_for_the_others(place: Path) -> None:
    results = [run(place, first_tasks=count) for count in (1, None)]
    known: dict[str, Inputs] = {}
    for result in (*results, *reversed(results)):
        assert result.path is not None
        settings, _ = config.revive(result.config)
        require_inputs(settings, result, result.path, known=known)
    assert [list(one.benchmark.tasks) for one in results] == [["task0"], ["task0", "task1"]]


def test_a_smoke_run_is_not_handed_out_either(place: Path) -> None:
    run(place, quick=True)
    replace_image("test")(place)
    with pytest.raises(ClbenchError, match="images of task1/test"):
        run(place, quick=True)


@pytest.mark.slow
def test_a_comparison_reuses_nothing_that_changed(place: Path) -> None:
    settings = {
        **config.backbone_settings(str(place / "weights.safetensors")),
        "data_root": str(place / "cache"),
        "device": "cpu",
    }
    options: dict[str, Any] = {"runs_dir": place / "runs", "settings": settings, "quiet": True}
    benchmark = f"folder:{place / 'tasks'}"
    api.compare(benchmark, ["zeroshot"], [0], **options)
    replace_weights(place)
    with pytest.raises(ClbenchError, match=r"^zeroshot on .*, seed 0: .*the backbone's weights"):
        api.compare(benchmark, ["zeroshot"], [0], **options)


def test_the_command_line_says_so_even_when_quiet(place: Path) -> None:
    arguments = ["run", "--method", "zeroshot", "--benchmark", f"folder:{place / 'tasks'}", "-q"]
    arguments += ["--backbone", place / "weights.safetensors", "--root", place / "cache"]
    arguments += ["--runs-dir", place / "runs", "--set", "device=cpu"]
    command = [str(argument) for argument in arguments]
    assert CliRunner().invoke(app, command).exit_code == 0
    replace_image("test")(place)
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert "the images of task1/test" in line
    assert outcome.stdout == "", "no table of old numbers"


def test_what_cannot_be_checked_or_is_not_read_is_told(place: Path) -> None:
    (place / "tasks" / "task0" / "train" / "kind 0 0" / "moving.gif").write_bytes(b"GIF89a")
    notes = Notes()
    result = run(place, reporter=notes, backbone__model="ViT-B-16")
    (note,) = (text for text in notes.texts if "moving.gif" in text)
    (log,) = (place / "runs").rglob("log.txt")
    assert note in log.read_text()
    assert result.config["backbone"]["model"] == "ViT-B-16"
    assert result.backbone.model == "ViT-128x4-8", "what the file describes"
    (place / "weights.safetensors").unlink()
    with pytest.raises(ClbenchError, match=r"is complete, but whether .*`clbench show ") as caught:
        run(place, backbone__model="ViT-B-16")
    assert str(place / "weights.safetensors") in str(caught.value)
