"""What a benchmark is made of: classes with their prompts, tasks, and the sequence of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class ClassTexts:
    """Classes to choose from: their names and, for each, the prompts that describe it.

    Attributes:
        names: the C class names.
        prompts: C tuples of texts, one text per template. The first is the training prompt;
            at test the text features of all of them are averaged. Classes may have different
            numbers of prompts, so classes of several data sets can stand in one list.
        ids: C numbers, by which a class is known in the whole benchmark: classes of the same name
            or prompt in two tasks have two ids. `Benchmark` gives them out in task order; before
            that they count from 0.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.prompts):
            raise ValueError(f"{len(self.names)} class names but {len(self.prompts)} prompt lists")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(len(self.names))))
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} ids")
        if not all(self.prompts):
            raise ValueError("every class needs at least one prompt")

    @classmethod
    def from_templates(cls, names: Sequence[str], templates: Sequence[str]) -> ClassTexts:
        """Fill every template with every class name.

        >>> ClassTexts.from_templates(["cat"], ["a photo of a {}.", "a {}."]).prompts
        (('a photo of a cat.', 'a cat.'),)
        """
        prompts = tuple(tuple(t.format(name) for t in templates) for name in names)
        return cls(tuple(names), prompts)

    @property
    def training_prompts(self) -> tuple[str, ...]:
        """The first prompt of every class."""
        return tuple(prompts[0] for prompts in self.prompts)

    def first(self) -> ClassTexts:
        """The same classes with only their training prompt."""
        return ClassTexts(self.names, tuple(prompts[:1] for prompts in self.prompts), self.ids)

    def only(self, rows: Sequence[int]) -> ClassTexts:
        """Some of the classes, by their places in this list."""
        return ClassTexts(
            tuple(self.names[row] for row in rows),
            tuple(self.prompts[row] for row in rows),
            tuple(self.ids[row] for row in rows),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: ClassTexts) -> ClassTexts:
        return ClassTexts(
            self.names + other.names, self.prompts + other.prompts, self.ids + other.ids
        )


@dataclass(frozen=True)
class Task:
    """One task of the sequence.

    Attributes:
        name: unique within the benchmark.
        classes: its C classes; labels run from 0 to C - 1 within the task, so that the class with
            label y has the id ``classes.ids[y]``.
        index: how many tasks come before it; set by `Benchmark`.
        count: how many tasks there are in all; set by `Benchmark`.
    """

    name: str
    classes: ClassTexts
    index: int = 0
    count: int = 1


class Setting(StrEnum):
    """Which class names an image is scored among at test."""

    TASK_GIVEN = "task-given"
    """Those of its own task (MTIL: the data set is known at test)."""
    TASK_HIDDEN = "task-hidden"
    """Those of all tasks of the sequence (the X-TAIL question)."""
    CLASS_INCREMENTAL = "class-incremental"
    """Those of all tasks learned so far."""


@dataclass(frozen=True)
class Benchmark:
    """A sequence of tasks and the rule by which they are scored. Holds no images.

    Attributes:
        name: as used on the command line, e.g. ``mtil-5shot``.
        version: raised whenever a number could change.
        setting: the label space at test.
        order: name of the task order, e.g. ``I``.
        tasks: the T tasks, in training order. They are numbered here, and so are their classes,
            from 0 on in the order of the tasks.
    """

    name: str
    version: int
    setting: Setting
    order: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"task names must be unique and not empty: {names}")
        numbered, first = [], 0
        for index, task in enumerate(self.tasks):
            ids = tuple(range(first, first + len(task.classes)))
            classes = replace(task.classes, ids=ids)
            numbered.append(replace(task, classes=classes, index=index, count=len(names)))
            first += len(ids)
        object.__setattr__(self, "tasks", tuple(numbered))

    def __len__(self) -> int:
        return len(self.tasks)

    def candidates(self, learned: int, task: int) -> ClassTexts | None:
        """Classes that images of a task are scored among.

        Args:
            learned: number of tasks learned so far, 0 to T.
            task: index of the tested task, 0 to T - 1.

        Returns:
            The candidate classes, or None where the protocol defines no score (a
            class-incremental task whose classes have not been seen).
        """
        if self.setting is Setting.TASK_GIVEN:
            return self.tasks[task].classes
        if self.setting is Setting.TASK_HIDDEN:
            return self._classes(len(self.tasks))
        return self._classes(learned) if task < learned else None

    def label_offset(self, task: int) -> int:
        """Where the classes of a task begin among its candidates."""
        if self.setting is Setting.TASK_GIVEN:
            return 0
        return sum(len(t.classes) for t in self.tasks[:task])

    def _classes(self, count: int) -> ClassTexts:
        merged = ClassTexts((), ())
        for task in self.tasks[:count]:
            merged = merged + task.classes
        return merged
