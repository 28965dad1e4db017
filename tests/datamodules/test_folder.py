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
