"""A grid tells what is over as soon as it is, and what was there before first of all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clbench.core.settings import RunSettings
from clbench.launch import make
from clbench.launch.cells import Cell, Event, Outcome, Resources
from clbench.launch.grid import sweep
from clbench.launch.make import Grid, Wanted
from clbench.launch.records import Records

OUTCOMES = {0: Outcome.DIVERGED, 1: Outcome.MISTAKE, 2: Outcome.DONE}
"""Of the seeds of fine-tuning."""


class Ends:
    """A launcher whose cells end at once, as `OUTCOMES` has it."""

    name = "ends"
    stays = False

    def __init__(self, records: Records, options: Mapping[str, Any]) -> None:
        pass

    def fitted(self, cells: Sequence[Cell], resources: Resources) -> Resources:
        return resources

    def run(self, cells: Sequence[Cell], resources: Resources) -> Iterator[Event]:
        for cell in cells:
            yield Event(cell)
            yield Event(cell, OUTCOMES[cell.seed], code=0)

    def farewell(self) -> str:
        return ""


@pytest.fixture
def runs(quick_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which zero-shot CLIP is complete and fine-tuning is missing."""
    monkeypatch.setitem(make.LAUNCHERS, "ends", Ends)
    return Path(shutil.copytree(quick_runs, tmp_path / "runs"))


def told(
    runs: Path, text: Mapping[str, Any], *, probed: bool = False
) -> list[tuple[str, int, Outcome]]:
    """What a grid tells of its runs."""
    found: list[tuple[str, int, Outcome]] = []

    def ended(settings: RunSettings, outcome: Outcome) -> None:
        found.append((settings.method.name, settings.seed, outcome))

    planned = sweep({"benchmarks": ["mini"], **text}, quick=True)
    Grid(planned, runs, Wanted("ends")).make(Console(quiet=True), probed=probed, ended=ended)
    return found


def test_runs_that_are_over_are_told_in_their_order(runs: Path) -> None:
    assert told(runs, {"methods": ["finetune"], "seeds": [0, 1, 2]}) == [
        ("finetune", 0, Outcome.DIVERGED),
        ("finetune", 2, Outcome.DONE),
    ]


def test_what_was_complete_before_is_told_first(runs: Path) -> None:
    text = {
        "grid": [
            {"methods": ["finetune"], "seeds": [2], "train.lr": [1e-3]},
            {"methods": ["zeroshot"], "seeds": [0], "train.lr": [1e-5]},
        ]
    }
    assert told(runs, text) == [
        ("zeroshot", 0, Outcome.DONE),
        ("finetune", 2, Outcome.DONE),
    ]


def test_complete_runs_without_a_probe_are_made_anew_where_that_is_wanted(runs: Path) -> None:
    (run,) = (runs / "mini/zeroshot").iterdir()
    text = {"methods": ["zeroshot"], "seeds": [0], "probes": ["gap"]}
    assert told(runs, text) == [("zeroshot", 0, Outcome.DONE)]
    assert told(runs, text | {"probes": []}, probed=True) == [("zeroshot", 0, Outcome.DONE)]
    assert (run / "result.json").is_file()
    assert told(runs, text, probed=True) == [("zeroshot", 0, OUTCOMES[0])]
    assert not (run / "result.json").exists()
    assert [path.name for path in (runs / "mini").rglob("result.json") if run.name in str(path)]
