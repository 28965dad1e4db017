"""Makes the trials of all methods, and chooses."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from clbench import config, registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import write_atomic
from clbench.core.results.result import FILE_NAME, RESULTS, RunResult
from clbench.core.settings import RunSettings
from clbench.engine.rundir.directory import run_path
from clbench.launch.cells import Outcome
from clbench.launch.driving import told_once
from clbench.launch.kept import Kept
from clbench.launch.make import Grid, Wanted
from clbench.launch.plan import Planned
from clbench.report.search.read import FILE, FORMAT, load_trials
from clbench.tuning.search import Search, Values
from clbench.tuning.space import space_of

BUDGET, REPEATED = 16, 3
DIVERGED: Final = "diverged"
"""Folder of what was measured of trials whose training diverged."""
SEEDS: Final = (0, 1, 2)
"""The seed of all trials, and those with which the best are repeated."""
CRITERIA: Final = ("average", "last", "transfer")
MOST_TRIALS: Final = 1000


@dataclass(frozen=True)
class Wish:
    """What is searched, and how.

    Attributes:
        benchmark: name.
        methods: names.
        budget: settings per method.
        repeated: how many of the best are repeated with more seeds.
        criterion: metric that decides, fixed before the first trial.
        overrides: settings by dotted key, for every trial.
        quick: smoke runs.
    """

    benchmark: str
    methods: Sequence[str]
    budget: int = BUDGET
    repeated: int = REPEATED
    criterion: str = "average"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise unknown_name("criterion", self.criterion, CRITERIA)
        if not 1 <= self.budget <= MOST_TRIALS:
            raise ClbenchError(f"--budget {self.budget}: 1 to {MOST_TRIALS}")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings by dotted key that all trials share: other images, another order, few tasks."""
        return {**registry.benchmark(self.benchmark).tuning, **self.overrides}

    def planned(self, method: str, values: Values, seed: int) -> Planned:
        """The validated settings of a trial."""
        given = {**self.settings, **values, "seed": seed}
        return config.resolve(method, self.benchmark, overrides=given, quick=self.quick)


@dataclass
class Tuned:
    """A method, what was tried of it, and what came out.

    Attributes:
        method: name.
        search: the trials.
        scores: number of a repeated trial to its scores by seed.
        problem: why the search of this method stopped; empty if it did not.
    """

    method: str
    search: Search
    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)
    problem: str = ""

    @property
    def chosen(self) -> int | None:
        """Number of the trial with the best mean over seeds; None if all diverged."""
        means = {
            number: statistics.fmean(s for s in scores.values() if s is not None)
            for number, scores in self.scores.items()
            if scores and None not in scores.values()
        }
        return max(means, key=lambda n: (means[n], -n)) if means else self.search.best


class Tuning:
    """A search over settings of several methods with the same budget.

    Args:
        wish: what is searched.
        runs_dir: folder of all runs.
        out: folder of results and tables.
        wanted: how runs are made.

    Raises:
        ClbenchError: a method or recipe that does not exist or is not valid.
    """

    def __init__(self, wish: Wish, runs_dir: Path, out: Path, wanted: Wanted) -> None:
        self.wish, self.runs_dir, self.out, self.wanted = wish, runs_dir, out, wanted
        recipe = registry.benchmark(wish.benchmark)
        self._classes = {name: registry.method(name) for name in wish.methods}
        self.spaces = {name: space_of(cls, recipe) for name, cls in self._classes.items()}
        self.methods = [Tuned(n, Search(s, wish.budget)) for n, s in self.spaces.items()]
        self._kept, self._diverged = Kept(out / RESULTS), Kept(out / DIVERGED)
        self._require_same_rule()
        for tuned in self.methods:  # a mistake in the last method is told before the first trial
            for values in Search(self.spaces[tuned.method], 1).ask():
                wish.planned(tuned.method, values, SEEDS[0])

    @property
    def trials(self) -> int:
        """How many trials there will be, without repetitions."""
        return sum(tuned.search.budget for tuned in self.methods)

    @property
    def repetitions(self) -> int:
        """How many runs with other seeds there may be."""
        if self.wish.repeated < 2:
            return 0
        again = (min(self.wish.repeated, t.search.budget) for t in self.methods if t.search.space)
        return sum(again) * (len(SEEDS) - 1)

    @property
    def begun(self) -> bool:
        """Whether there is something to show."""
        return any(tuned.search.trials for tuned in self.methods)

    def make(self, console: Console, *, quiet: bool = False) -> None:
        """Make all trials, then repeat the best, and keep every result as it comes.

        Args:
            console: where progress is shown.
            quiet: show no progress.

        Raises:
            ClbenchError: trials that could not be made, all of them; the others are kept.
        """
        problems: list[str] = []
        while asked := {
            tuned.method: values
            for tuned in self.methods
            if not tuned.problem and (values := tuned.search.ask())
        }:
            first = max(len(tuned.search.trials) for tuned in self.methods)
            last = first + max(map(len, asked.values()))
            console.print(
                f"settings {first + 1} to {last} of {self.wish.budget} for {len(asked)} methods"
            )
            wanted = [  # a setting of all methods before the next of any
                (name, values[i], SEEDS[0])
                for i in range(last - first)
                for name, values in asked.items()
                if i < len(values)
            ]
            scores: dict[str, list[float | None]] = {name: [] for name in asked}
            found = self._scores(wanted, console, quiet, problems)
            for (name, *_), score in zip(wanted, found, strict=True):
                scores[name].append(score)
            for tuned in self.methods:
                if any(is_missing(score) for score in scores.get(tuned.method, ())):
                    tuned.problem = "trials are missing"
                elif tuned.method in asked:
                    tuned.search.tell(asked[tuned.method], scores[tuned.method])
            self.write()
        self._repeat(console, quiet, problems)
        self.write()
        if problems:
            raise ClbenchError("\n".join(dict.fromkeys(problems)))

    def write(self) -> None:
        """Write which trials there are and what was chosen; other methods' entries stay."""
        before = load_trials(self.out)
        others = {} if before is None else before.model_dump()["methods"]
        methods = others | {tuned.method: self._told(tuned) for tuned in self.methods}
        rule = {**self._rule(), "budget": self.wish.budget}
        content = {"format": FORMAT, **rule, "methods": dict(sorted(methods.items()))}
        write_atomic(self.out / FILE, json.dumps(content, indent=1) + "\n")

    def _rule(self) -> dict[str, Any]:
        """What must be the same for all methods."""
        return {
            "benchmark": self.wish.benchmark,
            "criterion": self.wish.criterion,
            "settings": self.wish.settings,
            "quick": self.wish.quick,
        }

    def _require_same_rule(self) -> None:
        """Refuse to put two searches into one folder, or to change the criterion after a look."""
        if (before := load_trials(self.out)) is None:
            return
        for key, value in self._rule().items():
            if (found := getattr(before, key)) != value:
                raise ClbenchError(
                    f"{self.out} holds a search with {key} {found!r}, not {value!r}: "
                    "it is fixed before the first trial, so that every method has the same; name "
                    "another folder with --out"
                )

    def _repeat(
        self,
        console: Console,
        quiet: bool,
        problems: list[str],
    ) -> None:
        again = [
            (tuned, number)
            for tuned in self.methods
            if not tuned.problem and tuned.search.space
            for number in tuned.search.ranked()[: self.wish.repeated]
        ]
        if not again or self.wish.repeated < 2:
            return
        console.print(f"the best {self.wish.repeated} of each with {len(SEEDS) - 1} more seeds")
        wanted = [(t.method, t.search.trials[n].values, s) for s in SEEDS[1:] for t, n in again]
        scores = self._scores(wanted, console, quiet, problems)
        pairs = [(tuned, number, seed) for seed in SEEDS[1:] for tuned, number in again]
        for (tuned, number, seed), score in zip(pairs, scores, strict=True):
            first = tuned.search.trials[number].score
            of_trial = tuned.scores.setdefault(number, {SEEDS[0]: first})
            if is_missing(score):
                tuned.problem = "repetitions are missing"
            else:
                of_trial[seed] = score

    def _scores(
        self,
        wanted: Sequence[tuple[str, Values, int]],
        console: Console,
        quiet: bool,
        problems: list[str],
    ) -> list[float | None]:
        """What settings reach: None where training diverged, NaN where nothing is known."""
        trials = [self.wish.planned(name, values, seed) for name, values, seed in wanted]
        scores = [self._score(trial) for trial in trials]
        left = [trial for trial, score in zip(trials, scores, strict=True) if is_missing(score)]
        if not left:
            return scores
        made = Grid(left, self.runs_dir, self.wanted).make(console, quiet=quiet, ended=self._keep)
        problems += told_once([f for f in made.failures if f.outcome is not Outcome.DIVERGED])
        return [
            self._score(trial) if is_missing(score) else score
            for trial, score in zip(trials, scores, strict=True)
        ]

    def _keep(self, settings: RunSettings, outcome: Outcome) -> None:
        """Keep what a trial reached, as soon as it is over."""
        file, diverged = self._kept.file(settings), self._diverged.file(settings)
        source = run_path(self.runs_dir, settings) / FILE_NAME
        if outcome is Outcome.DIVERGED and source.exists():
            RunResult.load(source).save(diverged)
            file.unlink(missing_ok=True)
        elif outcome is Outcome.DONE:
            self._kept.keep(self.runs_dir, settings, outcome)
            diverged.unlink(missing_ok=True)

    def _score(self, trial: Planned) -> float | None:
        """What a trial reached: None where training diverged, NaN where nothing is known."""
        if (result := self._kept.result(trial)) is None:
            return math.nan if self._diverged.result(trial) is None else None
        score = result.summary.get(self.wish.criterion)
        if score is None:
            raise ClbenchError(
                f"--criterion {self.wish.criterion}: {self.wish.benchmark!r} defines no such metric"
            )
        return score

    def _told(self, tuned: Tuned) -> dict[str, Any]:
        """A method's part of the file."""
        search = tuned.search
        return {
            "declared": {n: str(d) for n, d in self.spaces[tuned.method].items()},
            "searched": {n: str(d) for n, d in search.space.items()},
            "extended": search.extended,
            "trials": [
                {
                    "values": trial.values,
                    "score": trial.score,
                    "result": self._file(tuned, trial.values, SEEDS[0]).name,
                }
                for trial in search.trials
            ],
            "repeated": {
                str(number): {str(seed): score for seed, score in scores.items()}
                for number, scores in tuned.scores.items()
            },
            "chosen": tuned.chosen,
            "edges": search.edges(tuned.chosen),
            "problem": tuned.problem,
        }

    def _file(self, tuned: Tuned, values: Values, seed: int) -> Path:
        return self._kept.file(self.wish.planned(tuned.method, values, seed)[0])


def is_missing(score: float | None) -> bool:
    """Whether nothing is known of a trial."""
    return score is not None and math.isnan(score)
