from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.core.task import Setting
from clbench.datamodules import folder
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.rundir.directory import run_path


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(list(path.name.encode())).integers(0, 255, 3)
    Image.fromarray(np.full((12, 20, 3), colour, dtype=np.uint8)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two tasks of two classes, three training images and one test image each."""
    root = tmp_path / "my tasks"
    for task, classes in {"birds": ["crow", "blue_tit"], "acts": ["run", "sit"]}.items():
        for name in classes:
            for i in range(3):
                write_image(root / task / "train" / name / f"{i}.jpg")
            write_image(root / task / "test" / name / "9.PNG")
    return root


def build(source: Path, **options: object) -> TaskSequence:
    options = {"data_root": str(source.parent / "cache"), "image_size": 8, **options}
    return folder.tasks(path=str(source), **options)  # type: ignore[arg-type]


def test_folders_are_tasks_and_classes_in_alphabetical_order(source: Path) -> None:
    benchmark = build(source).benchmark
    assert [task.name for task in benchmark.tasks] == ["acts", "birds"]
    assert benchmark.tasks[1].classes.names == ("blue tit", "crow")
    assert benchmark.tasks[1].classes.prompts[0] == ("a photo of a blue tit.",)


def test_images_come_with_their_labels(source: Path) -> None:
    sequence = build(source)
    pixels, labels = sequence.train_set(1).__getitems__(range(6))
    assert pixels.shape == (6, 3, 8, 8)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(sequence.test_set(0)) == 2


def test_the_folder_itself_is_left_alone(source: Path) -> None:
    before = sorted(source.rglob("*"))
    sequence = build(source, shots=2)
    sequence.prepare(config.resolve("nusa", f"folder:{source}")[0].train, quiet=True)
    assert sorted(source.rglob("*")) == before
    assert len(sequence.train_set(0)) == 4
    cache = source.parent / "cache"
    assert len(list((cache / "decoded").glob("*.npy"))) == 4
    assert len(list((cache / "splits").rglob("*.json"))) == 2


def test_templates_and_setting_can_be_chosen(source: Path) -> None:
    options = {"templates": ["{}!", "a {}."], "setting": "class-incremental"}
    benchmark = build(source, **options).benchmark
    assert benchmark.tasks[0].classes.prompts[0] == ("run!", "a run.")
    assert benchmark.setting is Setting.CLASS_INCREMENTAL


@pytest.mark.parametrize("template", ["a photo", "{} {}", "{name}", "{"])
def test_templates_without_one_place_for_the_name_are_refused(source: Path, template: str) -> None:
    with pytest.raises(ClbenchError, match=r"benchmark.templates: .*class name"):
        build(source, templates=[template])


def test_a_layout_that_does_not_fit_names_the_folder(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"there is no folder .*nowhere; expected <task>/train"):
        build(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClbenchError, match=r"there are no folders in .*empty"):
        build(tmp_path / "empty")
    (source / "birds" / "test" / "crow" / "9.PNG").unlink()
    with pytest.raises(ClbenchError, match=r"no images in .*birds.test.crow"):
        build(source)
    (source / "birds" / "test" / "crow").rmdir()
    with pytest.raises(ClbenchError, match="class 'crow' has no folder in test/"):
        build(source)


def test_tiff_files_are_images_and_what_is_not_read_is_named(source: Path) -> None:
    folder = source / "acts" / "train" / "run"
    for name in ("3.tif", "4.TIFF"):
        write_image(folder / name)
    for name in ("5.gif", ".hidden", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "deeper").mkdir()
    write_image(source / "birds" / "test" / "stray.jpg")
    sequence = build(source)
    assert len(sequence.train_set(0)) == 8
    (note,) = sequence.notes
    for name in ("5.gif", "notes.txt", "deeper"):
        assert f"acts/train/run/{name}" in note
    assert "birds/test/stray.jpg" in note
    assert "hidden" not in note


def test_many_files_that_are_not_read_are_counted(source: Path) -> None:
    for i in range(9):
        (source / "acts" / "train" / "run" / f"{i}.gif").write_bytes(b"x")
    (note,) = build(source).notes
    assert "4.gif and 4 more in" in note
    assert "5.gif" not in note


def test_a_folder_of_images_alone_has_no_notes(source: Path) -> None:
    assert build(source).notes == ()


@pytest.mark.parametrize("setting", ["task-hidden", "class-incremental"])
@pytest.mark.parametrize("twin", ["crow", "Crow", "CROW_"])
def test_classes_of_one_name_are_refused_where_they_must_be_told_apart(
    source: Path, setting: str, twin: str
) -> None:
    for split in ("train", "test"):
        write_image(source / "zoo" / split / twin / "1.jpg")
    assert len(build(source).benchmark) == 3
    with pytest.raises(ClbenchError, match=f"'birds/crow' and 'zoo/.*setting={setting}: rename"):
        build(source, setting=setting)


def test_classes_of_one_name_in_one_task_are_always_refused(source: Path) -> None:
    for split in ("train", "test"):
        write_image(source / "birds" / split / "blue tit" / "1.jpg")
    with pytest.raises(ClbenchError, match="'birds/blue tit' and 'birds/blue tit' are one name"):
        build(source)


def test_a_smoke_run_looks_at_few_training_images(source: Path) -> None:
    for i in range(3, 600):
        write_image(source / "acts" / "train" / "run" / f"{i}.jpg")
    assert len(build(source).train_set(0)) == 603
    assert 256 <= len(build(source, quick=True).train_set(0)) < 512


def test_too_few_images_name_task_and_class(source: Path) -> None:
    with pytest.raises(ClbenchError, match="acts: class 'run' has 3 training images"):
        build(source, shots=4)


def test_the_name_of_the_benchmark_is_the_whole_configuration(source: Path) -> None:
    settings, _ = config.resolve("nusa", f"folder:{source}")
    assert settings.benchmark.options["path"] == str(source)
    recipe = registry.benchmark(settings.benchmark.name)
    assert recipe.family == "folder"


def test_its_run_directory_stays_inside(source: Path) -> None:
    runs = Path("/runs")
    for name in (f"folder:{source}", "folder:../../etc"):
        settings, _ = config.resolve("nusa", name)
        path = run_path(runs, settings)
        assert path.parent.parent.parent == runs
        assert ".." not in path.parts
