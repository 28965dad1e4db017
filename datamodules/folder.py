"""A benchmark made of any directory ``task/split/class/*.jpg``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.pixels.data_folder import data_folder, decoded
from clbench.datamodules.pixels.decoded import Decoded
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.reference import IMAGE_SUFFIXES
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.splits import few_shot

VERSION: Final = 1
LAYOUT: Final = "expected <task>/train/<class>/*.jpg and <task>/test/<class>/*.jpg"


def tasks(  # noqa: PLR0913 - the signature is the schema
    *,
    path: str,
    templates: list[str] | None = None,
    shots: Annotated[int, Field(gt=0)] | None = None,
    shot_seed: Annotated[int, Field(ge=0)] = 0,
    setting: Literal["task-given", "task-hidden", "class-incremental"] = "task-given",
    name: str = "folder",
    data_root: str | None = None,
    workers: int = 0,
    quick: bool = False,
    image_size: int = 224,
) -> TaskSequence:
    """The sub-folders of a folder as tasks, in alphabetical order.

    Class names are the names of the class folders, with underscores as spaces.

    Args:
        path: the folder.
        templates: prompts with ``{}`` for the class name, the first for training;
            ``a photo of a {}.`` if None.
        shots: training images per class; None means all.
        shot_seed: which images are drawn; independent of the training seed.
        setting: among which class names a test image is scored.
        name: name of the benchmark.
        data_root: folder for decoded images and index files; the user's data folder if None.
        workers: data-loading processes.
        quick: test on 64 images per task.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the folder is laid out otherwise, or a class has too few images.
    """
    source = Path(path).expanduser()
    texts = check_templates(templates or ["a photo of a {}."])
    folders = _subfolders(source)
    contents = [read_task(folder) for folder in folders]
    root = data_folder(data_root)
    names = [folder.name for folder in folders]
    specs = tuple(
        Task(task, ClassTexts.from_templates(found.class_names, texts))
        for task, found in zip(names, contents, strict=True)
    )
    trained = [found.train for found in contents]
    if shots is not None:
        splits = root / "splits" / "folder"  # tasks of several folders may have one name
        trained = [
            few_shot(task, x, found.class_names, shots, shot_seed, splits / x.digest()[:12])
            for task, x, found in zip(names, trained, contents, strict=True)
        ]
    benchmark = Benchmark(name, VERSION, Setting(setting), "alphabetical", specs)

    def load(task: int) -> tuple[Decoded, Decoded]:
        return (
            decoded(trained[task], image_size, root, f"{names[task]}-train"),
            decoded(contents[task].test, image_size, root, f"{names[task]}-test", quick=quick),
        )

    return TaskSequence(benchmark, load, image_size=image_size, workers=workers)


def read_task(folder: Path) -> Contents:
    """Both splits of one task; classes are the folders of the training split, sorted.

    Raises:
        ClbenchError: a split or class is missing or empty, or the test split has other classes.
    """
    classes = [p.name for p in _subfolders(folder / "train")]
    tested = [p.name for p in _subfolders(folder / "test")]
    for name in sorted(set(classes) ^ set(tested)):
        missing = "train" if name in tested else "test"
        raise ClbenchError(f"{folder}: class {name!r} has no folder in {missing}/; {LAYOUT}")
    names = tuple(name.replace("_", " ") for name in classes)
    return Contents(_split(folder / "train", classes), _split(folder / "test", classes), names)


def check_templates(templates: Sequence[str]) -> Sequence[str]:
    """The templates, if each can be filled with a class name.

    Raises:
        ClbenchError: one cannot.
    """
    for template in templates:
        try:
            fits = "cat" in template.format("cat")
        except (IndexError, KeyError, ValueError):
            fits = False
        if not fits:
            raise ClbenchError(
                f"benchmark.templates: {template!r} needs one {{}} for the class name"
            )
    return templates


def _split(folder: Path, classes: Sequence[str]) -> Samples:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ClbenchError(f"no images in {folder / name}; {LAYOUT}")
        files += [f"{name}/{p.name}" for p in found]
        labels += [label] * len(found)
    return Samples(np.array(labels, dtype=np.int64), folder, tuple(files))


def _subfolders(folder: Path) -> list[Path]:
    """The folders inside a folder, sorted by name; hidden ones are passed over."""
    if not folder.is_dir():
        raise ClbenchError(f"there is no folder {folder}; {LAYOUT}")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise ClbenchError(f"there are no folders in {folder}; {LAYOUT}")
    return found
