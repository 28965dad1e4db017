"""Losses of a run that are not those of its settings, one number after another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.losses import check_losses, same_losses
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import Finding
from clbench.core.settings import TrainSettings
from clbench.core.training import rate_factor
from tests.made_up import TASKS, make_result

STEPS = {"default": 45, "clocks": 20}
TRAIN = TrainSettings(steps=STEPS, lr={"default": 1e-3, "flags": 2e-3}, warmup=10)
Records = list[dict[str, Any]]


def records(train: TrainSettings = TRAIN) -> Records:
    """What a run of three tasks keeps."""
    found: Records = []
    for number, task in enumerate(TASKS, start=1):
        steps = train.steps_for(task, 90)
        for step in [*range(20, steps, 20), steps]:
            factor = rate_factor(step, train.warmup_steps(steps), steps, train.schedule)
            lr = train.lr_for(task) * factor
            terms = {"classification": 1.5 / step, "distillation": -0.25}
            loss = sum(terms.values())
            found.append({"task": number, "step": step, "lr": lr, "loss": loss, **terms})
    return found


def check(
    folder: Path, found: Records, train: TrainSettings = TRAIN, *, total: int = 110, **options: Any
) -> Finding:
    text = "".join(json.dumps(record) + "\n" for record in found)
    (folder / "metrics.jsonl").write_text(text)
    result: RunResult = make_result(steps=total)
    options = {"recipe_schedule": True, **options}
    (finding,) = check_losses(folder, result, train, **options)
    return finding


def test_sound_losses_are_recomputed(tmp_path: Path) -> None:
    finding = check(tmp_path, records())
    assert finding == Finding(
        "metrics.jsonl", "110 steps, learning rates and sums of terms recomputed"
    )


def test_a_method_that_trains_at_once_has_all_steps_in_the_first_task(tmp_path: Path) -> None:
    once = TRAIN.model_copy(update={"steps": 110, "lr": 1e-3})
    found = [record for record in records(once) if record["task"] == 1]
    assert check(tmp_path, found, at_once=True).sound
    assert "does not reach" in check(tmp_path, found[:-1], at_once=True).text
    assert not check(tmp_path, found).sound


def edit(place: int, **values: Any) -> Callable[[Records], Records]:
    def change(found: Records) -> Records:
        found[place] |= values
        return found

    return change


def drop(place: int) -> Callable[[Records], Records]:
    return lambda found: found[:place] + found[place + 1 :]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit(0, loss=0.5), "step 20 of arrows: the loss is 0.5, its terms add up to -0.175"),
        (edit(4, distillation=-0.3), "step 20 of flags: the loss is"),
        (edit(0, lr=1e-3), "step 20 of arrows: the learning rate is 0.001, the settings give"),
        (edit(6, lr=1e-6), "step 45 of flags: the learning rate is 1e-06, the settings give 0"),
        (edit(5, step=39), "the records of flags are not those of steps 20, 40, 45"),
        (drop(1), "the records of arrows are not those of steps 20, 40, 45"),
        (drop(2), "does not reach the last step of arrows"),
        (drop(3), "does not reach the last step of clocks"),
        (lambda found: [*found, found[-1]], "the records of flags are not those"),
        (edit(3, step=19), "does not reach the last step of clocks"),
        (edit(0, loss="low"), "damaged: "),
        (edit(0, lr=None), "damaged: "),
        (lambda found: [{"step": 20}, *found], "damaged: "),
        (lambda found: [[1], *found], "damaged: "),
    ],
)
def test_each_wrong_number_is_named(
    change: Callable[[Records], Records], expected: str, tmp_path: Path
) -> None:
    finding = check(tmp_path, change(records()))
    assert not finding.sound
    assert finding.text.startswith(expected)


def test_of_many_steps_the_first_are_named(tmp_path: Path) -> None:
    train = TRAIN.model_copy(update={"steps": 80})
    found = records(train)
    finding = check(tmp_path, drop(1)(found), train, total=240)
    assert finding.text == "the records of arrows are not those of steps 20, 40, 60, ..."


def test_the_steps_are_those_of_the_result(tmp_path: Path) -> None:
    finding = check(tmp_path, records(), total=111)
    assert finding == Finding("metrics.jsonl", "110 steps, the result has 111", False)


def test_rates_of_a_schedule_of_the_methods_own_are_not_compared(tmp_path: Path) -> None:
    found = [record | {"lr": 1.0} for record in records()]
    finding = check(tmp_path, found, recipe_schedule=False)
    assert finding == Finding("metrics.jsonl", "110 steps, sums of terms recomputed")


def test_epochs_give_steps_that_only_the_images_tell(tmp_path: Path) -> None:
    train = TRAIN.model_copy(update={"epochs": 8.0, "batch_size": 30, "warmup": 0.1})
    assert check(tmp_path, records(train), train, total=72).sound


def test_records_beyond_the_last_tested_task_do_not_count(tmp_path: Path) -> None:
    values = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [None] * 3, [None] * 3]
    found = records()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found[:5]))
    partial = make_result(values=values, status="partial", steps=45)
    (finding,) = check_losses(tmp_path, partial, TRAIN, recipe_schedule=True)
    assert finding.sound


@pytest.mark.parametrize(("steps", "text"), [(0, "none, as nothing was trained"), (1, "missing")])
def test_no_losses_are_right_where_nothing_was_trained(
    steps: int, text: str, tmp_path: Path
) -> None:
    result = make_result(steps=steps)
    (finding,) = check_losses(tmp_path, result, TRAIN, recipe_schedule=True)
    assert finding == Finding("metrics.jsonl", text, steps == 0)


def test_steps_without_any_term_are_no_error(tmp_path: Path) -> None:
    found = [{k: v for k, v in r.items() if k in ("task", "step", "lr")} for r in records()]
    assert check(tmp_path, found).sound


def written(folder: Path, found: Records) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    return folder


def test_the_losses_of_a_repetition_are_compared(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", records()), written(tmp_path / "2", records())
    assert same_losses(first, second) == []
    written(second, edit(3, loss=records()[3]["loss"] + 0.5)(records()))
    assert same_losses(first, second) == ["1 of 7 records of losses differ, by up to 0.5"]
    written(second, records()[:-1])
    assert same_losses(first, second) == ["the losses are not of the same steps and terms"]
    (second / "metrics.jsonl").write_text("{")
    with pytest.raises(ClbenchError, match=r"metrics\.jsonl of .* is damaged"):
        same_losses(first, second)
    (second / "metrics.jsonl").unlink()
    assert same_losses(first, second) == []
