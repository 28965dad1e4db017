"""Average ranks of methods over the tasks of a benchmark, and how benchmarks agree on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from clbench.report.formats.cells import Cell, Grid
from clbench.report.ranks.measures import (
    ALPHA,
    Array,
    agreement,
    alike,
    average_ranks,
    critical_difference,
    friedman,
)
from clbench.report.tables.documents import TableDocument
from clbench.report.tables.grid import percent
from clbench.report.tables.groups import ComparableGroup, MethodRuns, is_upper_bound, method_runs

FEWEST: Final = 3
"""Methods that a comparison of ranks needs."""


@dataclass(frozen=True)
class Ranking:
    """The methods of one group of comparable runs, the best first.

    Attributes:
        group: the runs.
        methods: labels of the methods, as in the tables; upper bounds are left out.
        scores: ``(tasks, methods)``: accuracy on each task, mean over seeds and over all tests of
            the task since training began (class-incremental: since the task was learned).
        ranks: mean rank of each method over the tasks, rising.
        statistic: Friedman's.
        p: its p-value.
        difference: critical difference of two average ranks.
    """

    group: ComparableGroup
    methods: tuple[str, ...]
    scores: Array
    ranks: tuple[float, ...]
    statistic: float
    p: float
    difference: float

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last of every group of methods that do not differ."""
        return alike(self.ranks, self.difference)


def make_ranking(group: ComparableGroup) -> Ranking | None:
    """Rank the methods of a group; None for unfinished runs, under 3 methods or under 2 tasks."""
    rows = _ranked_rows(group)
    if len(rows) < FEWEST or len(group.results[0].benchmark.tasks) < 2:
        return None
    scores = np.stack([_per_task(row) for row in rows], axis=1)
    ranks = average_ranks(scores)
    order = sorted(range(len(rows)), key=lambda i: (ranks[i], -scores[:, i].mean(), rows[i].label))
    statistic, p = friedman(scores)
    return Ranking(
        group=group,
        methods=tuple(rows[i].label for i in order),
        scores=scores[:, order],
        ranks=tuple(ranks[order].tolist()),
        statistic=statistic,
        p=p,
        difference=critical_difference(len(rows), len(scores)),
    )


def ranking_document(ranking: Ranking) -> TableDocument:
    """The table of average ranks, with the groups of methods that do not differ as letters."""
    letters = _letters(ranking)
    rows = tuple(
        tuple(map(Cell, (method, f"{rank:.2f}", percent(score), letter)))
        for method, rank, score, letter in zip(
            ranking.methods, ranking.ranks, ranking.scores.mean(axis=0), letters, strict=True
        )
    )
    header = ("Method", "Average rank", "Accuracy", "Groups")
    grid = Grid(header, rows, (False, True, True, False))
    frame = pd.DataFrame(
        ranking.scores.T,
        index=pd.Index(ranking.methods, name="method"),
        columns=list(ranking.group.results[0].benchmark.tasks),
    )
    frame.insert(0, "average_rank", ranking.ranks)
    frame.insert(1, "groups", letters)
    tasks, methods = ranking.scores.shape
    test = (
        "All methods have the same accuracies."
        if math.isnan(ranking.p)
        else f"Friedman's test: chi-squared {ranking.statistic:.2f} with {methods - 1} degrees of "
        f"freedom, p = {ranking.p:.2g}."
    )
    notes = (
        f"Ranks of {methods} methods on {tasks} tasks, 1 is the best; accuracy on a task is the "
        "mean over seeds and over all tests of it since training began (class-incremental: since "
        "it was learned).",
        test,
        f"Two methods differ if their average ranks differ by {ranking.difference:.2f} or more "
        f"(Nemenyi's test at {ALPHA:g}, Demšar 2006); methods that share a letter do not.",
        "The test takes tasks as independent. Tasks of one sequence are not quite, so that it is a "
        "guide, not a proof.",
    )
    title = f"Average ranks: {ranking.group.title}"
    warnings = [ranking.group.reason] if ranking.group.reason else []
    return TableDocument("ranks", title, grid, frame, warnings, notes)


def correlation_document(groups: Sequence[ComparableGroup]) -> TableDocument | None:
    """How benchmarks agree on the order of methods; None if no two have 3 methods in common."""
    averages = {group.name: _averages(group) for group in groups}
    records = []
    for first, second in itertools.combinations(averages, 2):
        common = sorted(averages[first].keys() & averages[second].keys())
        if len(common) >= FEWEST:
            values = [[averages[name][method] for method in common] for name in (first, second)]
            records.append((first, second, len(common), *agreement(*values)))
    if not records:
        return None
    rows = tuple(
        (*(Cell(str(part)) for part in record[:3]), *(Cell(_signed(v)) for v in record[3:]))
        for record in records
    )
    header = ("Benchmark", "and", "Methods", "Kendall", "Spearman")
    grid = Grid(header, rows, (False, False, True, True, True))
    frame = pd.DataFrame(
        records, columns=["first", "second", "methods", "kendall_tau", "spearman_rho"]
    )
    note = (
        "Rank correlations of the Avg of the methods that both have: 1 is the same order, 0 none, "
        "-1 the opposite."
    )
    title = "How benchmarks agree on the order of methods"
    return TableDocument("rank-correlation", title, grid, frame, notes=[note], index=False)


def _ranked_rows(group: ComparableGroup) -> list[MethodRuns]:
    rows = method_runs(group.results)
    return [
        row
        for row in rows
        if not is_upper_bound(row.results[0])
        and all(result.status == "complete" for result in row.results)
    ]


def _per_task(row: MethodRuns) -> Array:
    seeds = [np.nanmean(result.matrix.values[1:], axis=0) for result in row.results]
    mean: Array = np.mean(seeds, axis=0)
    return mean


def _averages(group: ComparableGroup) -> dict[str, float]:
    found = {}
    for row in _ranked_rows(group):
        values = [result.summary["average"] for result in row.results]
        found[row.label] = float(np.mean([value for value in values if value is not None]))
    return found


def _letters(ranking: Ranking) -> list[str]:
    """The groups of every method: a, b, ..., z, aa, ab, ..."""
    names = [_letter(i) for i in range(len(ranking.groups))]
    return [
        " ".join(
            name
            for name, (first, last) in zip(names, ranking.groups, strict=True)
            if first <= i <= last
        )
        for i in range(len(ranking.methods))
    ]


def _letter(number: int) -> str:
    before, own = divmod(number, 26)
    return ("" if before == 0 else _letter(before - 1)) + chr(ord("a") + own)


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
