"""Reads what a search over settings left behind: its trials, and the result of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from clbench.core.errors import ClbenchError
from clbench.core.foreign.json_text import load_json
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.result import RESULTS, SUMMARY_TOLERANCE, RunResult
from clbench.report.tables.groups import is_upper_bound

FILE: Final = "trials.json"
FORMAT: Final = "clbench-tuning/1"
_RESULT: Final = re.compile(r"[^/\\]+-seed\d+-[0-9a-f]+\.json")

Summary = Mapping[str, float | None]
"""Metrics of a run as fractions."""


@dataclass(frozen=True)
class Trial:
    """One setting of a method.

    Attributes:
        values: what was searched, by dotted key.
        score: the criterion; None where training diverged.
        summary: all metrics; empty where training diverged.
    """

    values: Mapping[str, Any]
    score: float | None
    summary: Summary

    @property
    def text(self) -> str:
        """The values as ``--set`` takes them."""
        return ", ".join(f"{key}={_short(value)}" for key, value in self.values.items())


@dataclass(frozen=True, eq=False)
class MethodSearch:
    """What was tried of one method.

    Attributes:
        name: of the method.
        title: what tables and figures call it.
        declared: dimensions to their ranges before the search.
        searched: the same after it.
        extended: dimensions whose range was extended.
        trials: in the order they were made.
        repeated: number of a trial to its score by seed; None where training diverged.
        chosen: number of the chosen trial; None if there is none.
        chosen_runs: metrics of the chosen setting, one per seed that did not diverge.
        edges: by dimension, why the chosen value is an outermost one; empty where it is not.
        problem: why the search is not complete; empty if it is.
        upper_bound: whether it was trained on the data of all tasks.
    """

    name: str
    title: str
    declared: Mapping[str, str]
    searched: Mapping[str, str]
    extended: tuple[str, ...]
    trials: tuple[Trial, ...]
    repeated: Mapping[int, Mapping[int, float | None]]
    chosen: int | None
    chosen_runs: tuple[Summary, ...]
    edges: Mapping[str, str]
    problem: str
    upper_bound: bool

    @property
    def diverged(self) -> int:
        """How many trials diverged."""
        return sum(trial.score is None for trial in self.trials)

    def best(self, *keys: str) -> int | None:
        """Number of the trial with the largest mean of some metrics, the first of equal ones."""
        found = {n: mean_of(t.summary, keys) for n, t in enumerate(self.trials)}
        known = {n: value for n, value in found.items() if value is not None}
        return max(known, key=lambda n: (known[n], -n)) if known else None


@dataclass(frozen=True)
class SearchRecord:
    """A search over settings of several methods.

    Attributes:
        benchmark: its name.
        criterion: the metric that decided.
        budget: settings per method.
        settings: by dotted key, those that all trials share.
        quick: whether the trials were smoke runs.
        methods: sorted by name.
        zero_shot: metrics of the model before training; empty where it was not measured.
    """

    benchmark: str
    criterion: str
    budget: int
    settings: Mapping[str, Any]
    quick: bool
    methods: tuple[MethodSearch, ...]
    zero_shot: Summary

    @property
    def ranked(self) -> tuple[MethodSearch, ...]:
        """The methods but for upper bounds, which would stretch every axis and say nothing."""
        return tuple(method for method in self.methods if not method.upper_bound)

    @property
    def against(self) -> str:
        """What is shown against Last: Transfer, or Avg where Transfer does not exist."""
        known = (t.summary.get("transfer") for m in self.methods for t in m.trials)
        return "transfer" if any(value is not None for value in known) else "average"


def mean_of(summary: Summary, keys: tuple[str, ...]) -> float | None:
    """The mean of some metrics; None if one is unknown."""
    values = [summary.get(key) for key in keys]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def read_search(out: Path, titles: Mapping[str, str] | None = None) -> SearchRecord:
    """Read the folder of a search.

    Args:
        out: holds ``trials.json`` and ``results/``.
        titles: what methods are called; others go by their names.

    Raises:
        ClbenchError: a file is missing, damaged, or contradicts another one.
    """
    if (content := load_trials(out)) is None:
        raise ClbenchError(f"there is no search in {out}: it has no {FILE}")
    first: dict[str, RunResult] = {}
    methods = tuple(
        replace(_method(out, name, entry, content, first), title=(titles or {}).get(name, name))
        for name, entry in sorted(content.methods.items())
    )
    shown = content.model_dump(include={"benchmark", "criterion", "budget", "settings", "quick"})
    return SearchRecord(**shown, methods=methods, zero_shot=_zero_shot(first))


class _TrialEntry(BaseModel):
    values: dict[str, Any]
    score: float | None
    result: str


class _MethodEntry(BaseModel):
    declared: dict[str, str]
    searched: dict[str, str]
    extended: list[str]
    trials: list[_TrialEntry]
    repeated: dict[int, dict[int, float | None]]
    chosen: int | None
    edges: dict[str, str]
    problem: str


class TrialsFile(BaseModel):
    """The content of ``trials.json``."""

    format: Literal["clbench-tuning/1"]
    benchmark: str
    criterion: str
    budget: int
    settings: dict[str, Any]
    quick: bool
    methods: dict[str, _MethodEntry]


def load_trials(out: Path) -> TrialsFile | None:
    """The content of ``trials.json``; None if there is no such file.

    Raises:
        ClbenchError: it cannot be read, is damaged, or of another version.
    """
    path, cure = out / FILE, "put it back, or search again into another folder"
    try:
        return TrialsFile.model_validate(load_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise ClbenchError(f"{path} is damaged ({where}: {problem['msg']}): {cure}") from error
    except ValueError as error:
        raise ClbenchError(f"{path} is damaged, not valid JSON ({error}): {cure}") from error


def _method(
    out: Path, name: str, entry: _MethodEntry, content: TrialsFile, first: dict[str, RunResult]
) -> MethodSearch:
    numbers = range(len(entry.trials))
    named = [*entry.repeated, *([] if entry.chosen is None else [entry.chosen])]
    if wrong := [number for number in named if number not in numbers]:
        raise ClbenchError(f"{out / FILE} is damaged: {name} has no trial {wrong[0]}")
    trials = []
    for given in entry.trials:
        summary: Summary = {}
        if given.score is not None:
            result = _load(out, given.result, given.score, content.criterion)
            first.setdefault(name, result)
            summary = result.summary
        trials.append(Trial(given.values, given.score, summary))
    runs: list[Summary] = []
    if entry.chosen is not None:
        chosen = entry.trials[entry.chosen]
        for seed, score in (entry.repeated.get(entry.chosen) or {0: chosen.score}).items():
            file = re.sub(r"-seed\d+(-[^-]*)$", rf"-seed{seed}\1", chosen.result)
            if score is not None:
                runs.append(_load(out, file, score, content.criterion).summary)
    kept = entry.model_dump(include={"declared", "searched", "repeated", "edges", "problem"})
    return MethodSearch(
        name=name,
        title=name,
        extended=tuple(entry.extended),
        trials=tuple(trials),
        chosen=entry.chosen,
        chosen_runs=tuple(runs),
        upper_bound=name in first and is_upper_bound(first[name]),
        **kept,
    )


def _load(out: Path, name: str, score: float, criterion: str) -> RunResult:
    if not _RESULT.fullmatch(name):
        raise ClbenchError(f"{out / FILE} is damaged: {name!r} is no name of a result file")
    path = out / RESULTS / name
    result = RunResult.load(path)
    found = result.summary.get(criterion)
    if found is None or abs(found - score) > SUMMARY_TOLERANCE:
        raise ClbenchError(
            f"{path} has {criterion} {found or 0:.10g}, {FILE} says {score:.10g}: they are not of "
            "the same search"
        )
    return result


def _zero_shot(results: Mapping[str, RunResult]) -> Summary:
    for result in results.values():
        matrix = result.matrix
        if not np.isnan(matrix.values[0]).any():
            values = np.tile(matrix.values[0], (len(matrix.tasks) + 1, 1))
            still = AccuracyMatrix(matrix.tasks, values, matrix.counts, matrix.setting)
            return still.summary()
    return {}


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
