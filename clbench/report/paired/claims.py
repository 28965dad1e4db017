"""Which method papers found better, and whether it is so in one's own runs, image by image."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from clbench.core.errors import ClbenchError, unknown_name
from clbench.report.formats.cells import Cell, Grid
from clbench.report.paired.comparison import TITLES, RunFiles
from clbench.report.paired.resamples import Resamples, finished
from clbench.report.paired.statistics import CONFIDENCE, RESAMPLES
from clbench.report.papers.published import (
    PublishedNumber,
    name_in_papers,
    papers,
    plain,
    published_numbers,
)
from clbench.report.tables.grid import interval, percent
from clbench.report.tables.groups import (
    ComparableGroup,
    MethodRuns,
    comparable_groups,
    file_name,
    method_runs,
)

METRICS: Final = ("transfer", "average", "last")
"""What papers print of whole runs."""
ORDER: Final = "I"
"""Of the tasks; most papers report no other."""
FOUND, OPEN, REVERSED = "found", "open", "reversed"
KEYS: Final = ("metric", "better", "worse")
COLUMNS: Final = (*KEYS, "published", "difference", "low", "high", "verdict")


@dataclass(frozen=True)
class Claims:
    """Pairs of methods that differ in papers, and their differences in comparable runs.

    Attributes:
        group: the runs.
        benchmark: what the papers ran, by clbench's name.
        seeds: of the runs.
        methods: how many of their methods have published numbers.
        table: index: `metric`, and labels of the pair, `better` and `worse` as the papers have it.
            Columns: `published`, points, the smallest difference over all reports; `difference`,
            `low` and `high`, fractions, measured, better less worse; `verdict`, `FOUND` or
            `REVERSED` where the interval is without zero, else `OPEN`.
        left_out: labels of methods with published numbers whose runs have other seeds.
    """

    group: ComparableGroup
    benchmark: str
    seeds: tuple[int, ...]
    methods: int
    table: pd.DataFrame
    left_out: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Name of its files."""
        return file_name(f"claims-{self.benchmark}")

    @property
    def title(self) -> str:
        """What is compared, for a heading."""
        listed = ", ".join(map(str, self.seeds))
        return f"What papers found on {self.benchmark}: {self.group.title}, seeds {listed}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How often papers are confirmed, and how to read it."""
        counted = [self._counts(metric) for metric in self.table.index.unique("metric")]
        notes = (
            *counted,
            "The table has what is reversed; the CSV file all pairs.",
            f"Published: {self.benchmark}, order {ORDER}, {papers()['backbone']['published']}, of "
            f"{self.methods} methods; a pair counts if all reports of both agree and differ by "
            f"{_margin():.1f} points or more. Left out are numbers of code that decides the task "
            "of an image by its test batch. Measured: percentage points, means over seeds, in "
            f"brackets the {100 * CONFIDENCE:.0f} % percentile bootstrap interval over test "
            f"images, {RESAMPLES} resamples, not corrected for their number.",
            "Tasks, model and settings are others than the papers': what is reversed here need "
            "not be wrong there.",
        )
        if not self.left_out:
            return notes
        return *notes, f"Not here, for their runs are of other seeds: {', '.join(self.left_out)}."

    def grid(self) -> Grid:
        """The printed table: what is the other way round here, the largest differences first."""
        turned = self.table[self.table["verdict"] == REVERSED]
        rows = []
        for row in turned.reset_index().to_dict("records"):
            difference = percent(row["difference"], signed=True)
            measured = f"{difference} {interval(row['low'], row['high'])}"
            pair = (TITLES[row["metric"]], row["better"], row["worse"])
            rows.append(tuple(map(Cell, (*pair, f"{row['published']:+.1f}", measured))))
        header = ("Metric", "Better in papers", "than", "by at least", "Measured")
        return Grid(header, tuple(rows), (False, False, False, True, True))

    def _counts(self, metric: str) -> str:
        verdicts = Counter(self.table.xs(metric, level="metric")["verdict"])
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (FOUND, OPEN, REVERSED))
        return f"{TITLES[metric]}: of {verdicts.total()} pairs that differ in papers {told}."


def claims(runs: RunFiles, benchmark: str) -> list[Claims]:
    """Hold published differences of methods against measured ones, on whatever benchmark.

    Args:
        runs: all results, with their files.
        benchmark: what the papers ran, by clbench's name, e.g. ``mtil``.

    Returns:
        A table per group of comparable runs of at least two methods with published numbers.

    Raises:
        ClbenchError: nothing comparable was published on the benchmark, or not of two of the
            methods; per-image correctness is missing or contradicts the accuracies.
    """
    known = _published(benchmark)
    if not known:
        names = {rule["benchmark"] for rule in papers()["benchmarks"].values()}
        raise unknown_name("benchmark that papers report", benchmark, filter(_published, names))
    groups = comparable_groups(result for _, result in runs)
    found = [made for group in groups if (made := _claims(group, runs, benchmark, known))]
    if not found:
        raise ClbenchError(
            f"of no two methods with comparable runs are numbers on {benchmark} known from papers"
        )
    return found


def _claims(
    group: ComparableGroup, runs: RunFiles, benchmark: str, known: Sequence[PublishedNumber]
) -> Claims | None:
    every = [row for row in method_runs(group.results) if any(_reports(row, known))]
    seeds = Counter(row.seeds for row in every if finished(row))
    if not seeds:
        return None
    ((most, _),) = seeds.most_common(1)
    rows = [row for row in every if row.seeds == most and finished(row)]
    if len(rows) < 2:
        return None
    resamples = Resamples.of(group, rows, runs)
    records = [
        record
        for metric in METRICS
        if metric in resamples.metrics
        for record in _pairs(metric, rows, known, resamples)
    ]
    table = pd.DataFrame.from_records(records, columns=list(COLUMNS)).set_index(list(KEYS))
    left_out = tuple(row.label for row in every if row not in rows)
    return Claims(group, benchmark, most, len(rows), table, left_out)


def _pairs(
    metric: str,
    rows: Sequence[MethodRuns],
    known: Sequence[PublishedNumber],
    resamples: Resamples,
) -> list[dict[str, Any]]:
    """The pairs of a metric, those that are most clearly the other way round first."""
    m = resamples.metrics.index(metric)
    ranges = [_range(row, metric, known) for row in rows]
    measured = [resamples.differences(m, k) for k in range(len(rows))]
    records = []
    for a, b in itertools.permutations(range(len(rows)), 2):
        better, worse = ranges[a], ranges[b]
        if better is None or worse is None or (gap := better[0] - worse[1]) < _margin():
            continue
        differences, ends = measured[b]
        low, high = ends[a].tolist()
        records.append(
            {
                "metric": metric,
                "better": rows[a].label,
                "worse": rows[b].label,
                "published": gap,
                "difference": float(differences[a]),
                "low": low,
                "high": high,
                "verdict": FOUND if low > 0 else REVERSED if high < 0 else OPEN,
            }
        )
    return sorted(records, key=lambda record: record["difference"])


def _published(benchmark: str) -> list[PublishedNumber]:
    """Numbers of whole runs on a benchmark with the published backbone, judged image by image."""
    rules = papers()["benchmarks"]
    names = {name for name, rule in rules.items() if rule["benchmark"] == benchmark}
    return [
        number
        for number in published_numbers()
        if number.benchmark in names
        and "never" not in rules[number.benchmark]
        and number.order in ("-", ORDER)
        and number.backbone == papers()["backbone"]["published"]
        and number.metric in METRICS
        and not number.task
        and not number.by_batch
    ]


def _reports(row: MethodRuns, known: Sequence[PublishedNumber]) -> Iterator[PublishedNumber]:
    name = name_in_papers(row.results[0].method.name)
    return (number for number in known if plain(number.paper_method) == name)


def _range(
    row: MethodRuns, metric: str, known: Sequence[PublishedNumber]
) -> tuple[float, float] | None:
    """The smallest and the largest report of a method's metric; None if there is none."""
    values = [number.value for number in _reports(row, known) if number.metric == metric]
    return (min(values), max(values)) if values else None


def _margin() -> float:
    """Points by which means of whole runs differ from run to run."""
    return float(papers()["tolerances"]["trained"]["mean"])
