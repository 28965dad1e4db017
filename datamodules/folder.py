"""A benchmark made of any directory ``task/split/class/*.jpg``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.pixels.data_folder import data_cache, data_folder
from clbench.datamodules.pixels.decoded import Decoded, quick_sizes
from clbench.datamodules.pixels.rgb import SUFFIXES
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.sequence import TaskSequence
from clbench.datamodules.splits import few_shot

VERSION: Final = 2
"""2: TIFF files are read, and gray images of 16 bits are not white."""
SHOWN: Final = 5
"""Files that a message names."""
LAYOUT: Final = "expected <task>/train/<class>/*.jpg and <task>/test/<class>/*.jpg"


def tasks(  # noqa: PLR0913 - the signature is the schema
    *,
    path: str,
    templates: list[str] | None = None,
    shots: Annotated[int, Field(gt=0)] | None = None,
    shot_seed: Annotated[int, Field(ge=0)] = 0,
    setting: Literal[
        "task-given", "task-hidden", "class-incremental", "domain-incremental"
    ] = "task-given",
    name: str = "folder",
    data_root: str | None = None,
    cache_root: str | None = None,
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
        setting: among which class names a test image is scored; domain-incremental tasks all have
            the same classes.
        name: name of the benchmark.
        data_root: folder for decoded images and index files; the user's data folder if None.
        cache_root: folder for them in place of `data_root`.
        workers: data-loading processes.
        quick: train on about 256 images per task, test on 64.
        image_size: side the backbone expects.

    Raises:
        ClbenchError: the folder is laid out otherwise, a class has too few images, or two classes
            that are told apart have one name.
    """
    source = Path(path).expanduser()
    texts = check_templates(templates or ["a photo of a {}."])
    folders = _subfolders(source)
    skipped: list[Path] = []
    contents = [read_task(folder, skipped) for folder in folders]
    cache = data_cache(data_root, cache_root)
    names = [folder.name for folder in folders]
    specs = tuple(
        Task(task, ClassTexts.from_templates(found.class_names, texts))
        for task, found in zip(names, contents, strict=True)
    )
    _require_distinct(specs, Setting(setting))
    _require_same(specs, Setting(setting))
    trained = [found.train for found in contents]
    if shots is not None:
        splits = cache.within("splits").within("folder")
        trained = [  # tasks of several folders may have one name
            few_shot(task, x, found.class_names, shots, shot_seed, splits.within(x.digest()[:12]))
            for task, x, found in zip(names, trained, contents, strict=True)
        ]
    benchmark = Benchmark(name, VERSION, Setting(setting), "alphabetical", specs)

    def load(task: int) -> tuple[Decoded, Decoded]:
        about_train, about_test = quick_sizes(quick)
        train, test, task_name = trained[task], contents[task].test, names[task]
        return (
            Decoded.of(train, image_size, cache, f"{task_name}-train", about=about_train),
            Decoded.of(test, image_size, cache, f"{task_name}-test", about=about_test),
        )

    notes = [_left_out(skipped, source)] if skipped else []
    return TaskSequence(
        benchmark,
        load,
        image_size=image_size,
        data_root=data_folder(data_root),
        cache=cache,
        workers=workers,
        notes=notes,
    )


def read_task(folder: Path, skipped: list[Path]) -> Contents:
    """Both splits of one task; classes are the folders of the training split, sorted.

    Args:
        folder: of the task.
        skipped: receives what lies in and beside class folders and is not read.

    Raises:
        ClbenchError: a split or class is missing or empty, or the test split has other classes.
    """
    classes = [p.name for p in _subfolders(folder / "train")]
    tested = [p.name for p in _subfolders(folder / "test")]
    for name in sorted(set(classes) ^ set(tested)):
        missing = "train" if name in tested else "test"
        raise ClbenchError(f"{folder}: class {name!r} has no folder in {missing}/; {LAYOUT}")
    names = tuple(name.replace("_", " ") for name in classes)
    train, test = (_split(folder / split, classes, skipped) for split in ("train", "test"))
    return Contents(train, test, names)


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


def _require_distinct(tasks: Sequence[Task], setting: Setting) -> None:
    """Refuse classes of one name that a test image is scored among at once.

    Names that CLIP reads alike, whatever their case and spaces, are one name.
    """
    seen: dict[str, str] = {}
    for task in tasks:
        if setting in (Setting.TASK_GIVEN, Setting.DOMAIN_INCREMENTAL):
            seen = {}
        for name in task.classes.names:
            read, place = " ".join(name.split()).lower(), f"{task.name}/{name}"
            if read in seen:
                raise ClbenchError(
                    f"the classes {seen[read]!r} and {place!r} are one name to CLIP and cannot be "
                    f"told apart with benchmark.setting={setting}: rename a folder, or use "
                    "task-given if they belong to two tasks"
                )
            seen[read] = place


def _require_same(tasks: Sequence[Task], setting: Setting) -> None:
    """Refuse tasks of other classes in a domain-incremental benchmark."""
    if setting is not Setting.DOMAIN_INCREMENTAL:
        return
    first = tasks[0]
    for task in tasks[1:]:
        if odd := sorted(set(first.classes.names) ^ set(task.classes.names)):
            raise ClbenchError(
                f"benchmark.setting={setting} needs the same classes in all tasks: only one of "
                f"{first.name!r} and {task.name!r} has {odd[0]!r}"
            )


def _left_out(skipped: Sequence[Path], source: Path) -> str:
    """What is not read of a folder, in one line."""
    shown = ", ".join(str(path.relative_to(source)) for path in skipped[:SHOWN])
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    kinds = " ".join(sorted(SUFFIXES))
    return f"not read, because not {kinds} in a class folder: {shown}{more} in {source}"


def _split(folder: Path, classes: Sequence[str], skipped: list[Path]) -> Samples:
    files: list[str] = []
    labels: list[int] = []
    skipped += [path for path in _visible(folder) if not path.is_dir()]
    for label, name in enumerate(classes):
        entries = _visible(folder / name)
        found = [path for path in entries if path.suffix.lower() in SUFFIXES]
        skipped += [path for path in entries if path.suffix.lower() not in SUFFIXES]
        if not found:
            raise ClbenchError(f"no images in {folder / name}; {LAYOUT}")
        files += [f"{name}/{p.name}" for p in found]
        labels += [label] * len(found)
    return Samples(np.array(labels, dtype=np.int64), folder, tuple(files))


def _subfolders(folder: Path) -> list[Path]:
    """The folders inside a folder, sorted by name; without hidden ones."""
    if not folder.is_dir():
        raise ClbenchError(f"there is no folder {folder}; {LAYOUT}")
    found = [path for path in _visible(folder) if path.is_dir()]
    if not found:
        raise ClbenchError(f"there are no folders in {folder}; {LAYOUT}")
    return found


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without hidden files and folders."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
