"""Classes, prompts and the label spaces of the three settings."""

from __future__ import annotations

import pytest

from clbench.core.task import Benchmark, ClassTexts, Setting, Task

PETS = Task("pets", ClassTexts.from_templates(["cat", "dog"], ["a photo of a {}.", "a {}."]))
CARS = Task("cars", ClassTexts.from_templates(["van"], ["a {}, a type of car."]))
FOOD = Task("food", ClassTexts.from_templates(["pie", "soup", "rice"], ["some {}."]))


def benchmark(setting: Setting) -> Benchmark:
    return Benchmark("three", 1, setting, "I", (PETS, CARS, FOOD))


def names(setting: Setting, learned: int, task: int) -> tuple[str, ...] | None:
    candidates = benchmark(setting).candidates(learned, task)
    return None if candidates is None else candidates.names


def test_templates_are_filled_class_by_class() -> None:
    assert PETS.classes.prompts == (
        ("a photo of a cat.", "a cat."),
        ("a photo of a dog.", "a dog."),
    )
    assert PETS.classes.first().prompts == (("a photo of a cat.",), ("a photo of a dog.",))
    assert len(PETS.classes) == 2


def test_classes_with_different_numbers_of_prompts_can_stand_in_one_list() -> None:
    both = PETS.classes + CARS.classes
    assert both.names == ("cat", "dog", "van")
    assert [len(prompts) for prompts in both.prompts] == [2, 2, 1]


@pytest.mark.parametrize("learned", [0, 1, 3])
def test_task_given_offers_the_classes_of_the_tested_task(learned: int) -> None:
    assert names(Setting.TASK_GIVEN, learned, 1) == ("van",)
    assert benchmark(Setting.TASK_GIVEN).label_offset(2) == 0


@pytest.mark.parametrize("learned", [0, 1, 3])
def test_task_hidden_offers_the_classes_of_all_tasks(learned: int) -> None:
    everything = ("cat", "dog", "van", "pie", "soup", "rice")
    assert names(Setting.TASK_HIDDEN, learned, 0) == everything
    assert names(Setting.TASK_HIDDEN, learned, 2) == everything


def test_class_incremental_offers_the_classes_learned_so_far() -> None:
    assert names(Setting.CLASS_INCREMENTAL, 0, 0) is None
    assert names(Setting.CLASS_INCREMENTAL, 1, 0) == ("cat", "dog")
    assert names(Setting.CLASS_INCREMENTAL, 2, 0) == ("cat", "dog", "van")
    assert names(Setting.CLASS_INCREMENTAL, 2, 2) is None


@pytest.mark.parametrize("setting", Setting)
def test_labels_shifted_by_the_offset_name_the_right_class(setting: Setting) -> None:
    three = benchmark(setting)
    for index, task in enumerate(three.tasks):
        candidates = three.candidates(len(three), index)
        assert candidates is not None
        for label, name in enumerate(task.classes.names):
            assert candidates.names[three.label_offset(index) + label] == name


def test_broken_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 class names but 1 prompt lists"):
        ClassTexts(("cat", "dog"), (("a cat.",),))
    with pytest.raises(ValueError, match="at least one prompt"):
        ClassTexts(("cat",), ((),))


@pytest.mark.parametrize("tasks", [(), (PETS, CARS, PETS)])
def test_task_names_must_be_unique_and_there_must_be_some(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(ValueError, match="unique and not empty"):
        Benchmark("broken", 1, Setting.TASK_GIVEN, "I", tasks)


def test_some_classes_keep_their_prompts_and_numbers() -> None:
    classes = ClassTexts(("a", "b", "c"), (("a.",), ("b.", "B."), ("c.",)), (4, 5, 6))
    assert classes.only([2, 1]) == ClassTexts(("c", "b"), (("c.",), ("b.", "B.")), (6, 5))
    assert len(classes.only([])) == 0
