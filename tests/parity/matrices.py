"""Sets whole accuracy matrices of official trainers beside clbench's own."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.results.metrics import Array
from clbench.core.results.result import RunResult
from clbench.report.tables.matrix_csv import read_matrix_csv
from clbench.tidy import find_results

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports" / "parity"
BOUND = 1.1
"""Implementations may differ by a tenth more than two seeds of one implementation."""
METHODS = ("nusa", "lora", "milora", "gnsp")


@dataclass(frozen=True)
class Matrices:
    """What two implementations of a method measured, a matrix per seed.

    Attributes:
        method: its name.
        released: of the official trainer.
        own: of clbench.
        results: the runs of `own`.
    """

    method: str
    released: tuple[AccuracyMatrix, ...]
    own: tuple[AccuracyMatrix, ...]
    results: tuple[RunResult, ...]

    @property
    def comparable(self) -> bool:
        """Whether each implementation has two seeds to tell what a seed makes."""
        return min(len(self.released), len(self.own)) > 1

    @property
    def seeds_released(self) -> float:
        """Mean distance of two seeds of the official trainer, in points."""
        return statistics.mean(_within(cells(self.released)))

    @property
    def seeds_own(self) -> float:
        """Mean distance of two seeds of clbench, in points."""
        return statistics.mean(_within(cells(self.own)))

    @property
    def between(self) -> float:
        """Mean distance of a run of one implementation and one of the other, in points."""
        return statistics.mean(_across(cells(self.released), cells(self.own)))

    @property
    def ratio(self) -> float:
        """`between` over the mean distance of two seeds of one implementation, both alike."""
        return ratio(cells(self.released), cells(self.own))

    @property
    def met(self) -> bool:
        """Whether the implementations differ by no more than the bound allows."""
        return self.ratio <= BOUND

    def splits(self) -> tuple[int, int]:
        """How many splits of all runs in two groups of these sizes have a ratio as large, of all.

        Were the implementations the same, every split would be as likely as the true one.
        """
        runs = [*cells(self.released), *cells(self.own)]
        size, everyone = len(self.released), frozenset(range(len(runs)))
        chosen = map(frozenset, itertools.combinations(everyone, size))
        splits = {frozenset({group, everyone - group}) for group in chosen}
        ratios = [ratio(*([runs[i] for i in group] for group in split)) for split in splits]
        return sum(found >= self.ratio - 1e-9 for found in ratios), len(ratios)

    def largest(self) -> tuple[float, str, str]:
        """The largest difference of a cell's means, clbench less release, in points.

        Returns:
            The difference, the task learned last, and the task tested.
        """
        gaps = np.mean(cells(self.own), axis=0) - np.mean(cells(self.released), axis=0)
        row, column = np.unravel_index(np.abs(gaps).argmax(), gaps.shape)
        tasks = self.own[0].tasks
        return float(gaps[row, column]), tasks[row], tasks[column]

    def offset(self) -> float:
        """The mean of all cells of clbench less that of the release, in points."""
        return float(np.mean(cells(self.own)) - np.mean(cells(self.released)))


def cells(matrices: Sequence[AccuracyMatrix]) -> list[Array]:
    """``(T, T)`` percent each: the rows after training; what was tested before it is alike."""
    return [100 * matrix.values[1:] for matrix in matrices]


def ratio(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Mean distance across two groups of matrices over the mean distance within them."""
    within = [*_within(first), *_within(second)]
    return statistics.mean(_across(first, second)) / statistics.mean(within)


def read_all(folder: Path = FOLDER) -> list[Matrices]:
    """The matrices of all methods.

    Args:
        folder: holds ``released/<method>_seed<k>.csv`` and ``results/*.json``.
    """
    found = find_results([folder / "results"])
    return [_read(folder, method, found) for method in METHODS]


def _read(folder: Path, method: str, found: Sequence[RunResult]) -> Matrices:
    released = sorted((folder / "released").glob(f"{method}_seed?.csv"))
    results = sorted((r for r in found if r.method.name == method), key=lambda r: r.seed)
    return Matrices(
        method,
        tuple(read_matrix_csv(path) for path in released),
        tuple(result.matrix for result in results),
        tuple(results),
    )


def _within(runs: Sequence[Array]) -> Iterator[float]:
    return (_distance(*pair) for pair in itertools.combinations(runs, 2))


def _across(first: Sequence[Array], second: Sequence[Array]) -> Iterator[float]:
    return (_distance(*pair) for pair in itertools.product(first, second))


def _distance(a: Array, b: Array) -> float:
    return float(np.abs(a - b).mean())
