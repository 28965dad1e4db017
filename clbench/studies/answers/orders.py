"""How much of what methods score is the order of the tasks, and how much the seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from clbench import registry
from clbench.core.results.metrics import Array
from clbench.report.papers.published import name_in_papers, plain, published_numbers
from clbench.studies.analysis import Row, Table, Value
from clbench.studies.figures import draw_dots
from clbench.studies.runs import Estimate, Run, Runs, tenths
from clbench.studies.spread import Variance, mean_of, pooled_variance

METRICS: Final = {
    "transfer": "Transfer",
    "gain": "Transfer, gain",
    "average": "Avg",
    "last": "Last",
}
ALL: Final = "all methods"
DIFFERENCES: Final = "differences"
BENCHMARK: Final = ("MTIL-full", "I")
"""Benchmark and order of the published numbers."""
SURE: Final = 2
"""Standard deviations that a difference must have to count."""


@dataclass(frozen=True, eq=False)
class Spread:
    """A metric of something under several orders, and with several seeds.

    Attributes:
        name: of a method, of a difference of two, or of what is pooled.
        orders: in percent, ``(orders, k)``; k is 1 but for what is pooled.
        seeds: ``(seeds, k)``.
    """

    name: str
    orders: Array
    seeds: Array

    @property
    def by_order(self) -> Variance | None:
        """The variance over orders; None for a single one."""
        return _variance(self.orders)

    @property
    def by_seed(self) -> Variance | None:
        """The variance over seeds; None for a single one."""
        return _variance(self.seeds)

    @property
    def ratio(self) -> Estimate | None:
        """The variance over orders against that over seeds; None where that is not known, or 0."""
        orders, seeds = self.by_order, self.by_seed
        return orders.over(seeds) if orders and seeds and seeds.value else None

    @property
    def share(self) -> Estimate | None:
        """Percent of the variance over orders that no change of the seed explains."""
        if (ratio := self.ratio) is None:
            return None
        ends = (ratio.value, ratio.low, ratio.high)
        return Estimate(*(100 * (1 - 1 / x) if x > 1 else 0.0 for x in ends))


def spreads(runs: Runs, metric: str) -> list[Spread]:
    """Those of all methods, of all of them together, and of their differences together."""
    single = _methods(runs, metric)
    pairs = list(itertools.combinations(single, 2))
    together = [
        _joined(ALL, single),
        *([_joined(DIFFERENCES, [minus(a, b) for a, b in pairs])] if pairs else []),
    ]
    return [*single, *together]


def minus(first: Spread, second: Spread) -> Spread:
    """The difference of two methods, order by order and seed by seed."""
    return Spread(
        f"{first.name}-{second.name}", first.orders - second.orders, first.seeds - second.seeds
    )


def table(runs: Runs) -> Table:
    """A row per metric and method, and for what all methods have in common."""
    rows: list[Row] = []
    for metric, title in METRICS.items():
        for own in spreads(runs, metric):
            mean: Value = None
            if own.name not in (ALL, DIFFERENCES) and len(own.orders) > 1:
                mean = mean_of(own.orders[:, 0].tolist())
            rows.append((title, own.name, mean, *_deviations(own), own.ratio))
    header = ("Metric", "Method", "Mean over orders", "SD, orders", "SD, seeds", "Ratio")
    notes = (
        "SD: standard deviation over random orders with one seed, and over seeds with the "
        "alphabetical order, with the interval of the chi-squared distribution. Ratio: of the two "
        "variances, with that of the F distribution. All methods had the same orders and seeds: "
        "what is pooled over methods or over their differences has degrees of freedom after Box.",
        "Transfer, gain: Transfer minus that of the untrained CLIP in the same order. Transfer "
        "leaves out the first task, so that every order averages over other tasks.",
    )
    return Table(header, rows, notes)


def draw(runs: Runs) -> Figure:
    """Standard deviations over orders and seeds, a panel per metric."""
    found = {metric: spreads(runs, metric) for metric in METRICS}
    names = [own.name for own in next(iter(found.values()))]
    rows = [f"{name}, {over}" for name in names for over in ("orders", "seeds")]
    panels = [
        (f"{title}, SD", [value for own in found[metric] for value in _deviations(own)])
        for metric, title in METRICS.items()
    ]
    return draw_dots(rows, panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Spreads of methods and differences; what published differences they would swallow."""
    found: dict[str, str] = {}
    for metric in METRICS:
        single = _methods(runs, metric)
        pairs = [minus(a, b) for a, b in itertools.combinations(single, 2)]
        for own in (*spreads(runs, metric), *pairs):
            name = f"{metric} {own.name}"
            for over, deviation in zip(("orders", "seeds"), _deviations(own), strict=True):
                found[f"sd {name} {over}"] = str(deviation)
            found[f"ratio {name}"] = str(own.ratio)
            found[f"share {name}"] = str(own.share)
            if own.orders.shape[1] == 1:
                signed = own in pairs
                found[f"mean {name}"] = str(mean_of(own.orders[:, 0].tolist(), signed))
        if metric != "gain":
            found |= _published(metric, _joined(DIFFERENCES, pairs), runs.values("method"))
    return found


def published(metric: str) -> dict[str, float]:
    """What papers report of the methods here: name in papers to percent, the best first."""
    names = {name_in_papers(method) for method in registry.method_names()} - {"zeroshot"}
    found: dict[str, float] = {}
    for number in published_numbers():
        place = number.benchmark, number.order, number.metric, number.task
        if place == (*BENCHMARK, metric, "") and plain(number.method) in names:
            found.setdefault(number.method, number.value)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _published(metric: str, differences: Spread, methods: Sequence[str]) -> dict[str, str]:
    """Published differences of methods, and which are larger than those of orders and seeds."""
    orders, seeds = differences.by_order, differences.by_seed
    assert orders is not None
    assert seeds is not None
    limits = {"orders": orders.deviation(SURE), "seeds": seeds.deviation(SURE)}
    found = {f"limit {metric} {over}": str(limit) for over, limit in limits.items()}
    limit = max(one.value for one in limits.values())
    values = published(metric)
    own = {name_in_papers(method) for method in methods}
    groups: dict[str, Iterator[Any]] = {
        "published": itertools.combinations(values, 2),
        "neighbours": itertools.pairwise(values),
        "here": itertools.combinations([n for n in values if plain(n) in own], 2),
        "nusa": ((n, "NuSA-CL") for n in values if n != "NuSA-CL" and "NuSA-CL" in values),
    }
    for group, pairs in groups.items():
        gaps = {pair: abs(values[pair[0]] - values[pair[1]]) for pair in pairs}
        larger = {pair: gap for pair, gap in gaps.items() if gap > limit}
        smaller = {pair: gap for pair, gap in gaps.items() if gap <= limit}
        found[f"{group} {metric} pairs"] = str(len(gaps))
        found[f"{group} {metric} larger"] = str(len(larger))
        found[f"{group} {metric} larger list"] = _listed(larger)
        found[f"{group} {metric} smaller list"] = _listed(smaller)
    return found


def _listed(gaps: Mapping[tuple[str, str], float]) -> str:
    """Pairs with their differences, the smallest first."""
    ordered = sorted(gaps.items(), key=lambda item: item[1])
    return ", ".join(f"{a} and {b} ({tenths(gap)})" for (a, b), gap in ordered) or "none"


def _methods(runs: Runs, metric: str) -> list[Spread]:
    """The metric of every method, in the same order of orders and of seeds."""
    found = []
    for method in runs.values("method"):
        own = runs.where(method=method)
        orders = own.only(lambda run: str(run.setting("benchmark.order")).startswith("random-"))
        seeds = own.only(lambda run: not str(run.setting("benchmark.order")).startswith("random-"))
        found.append(Spread(method, _column(orders, metric), _column(seeds, metric)))
    return found


def _column(runs: Runs, metric: str) -> Array:
    ordered = sorted(runs, key=lambda run: (run.result.benchmark.order, run.result.seed))
    return np.array([[_value(run, metric)] for run in ordered])


def _value(run: Run, metric: str) -> float:
    """A metric of a run in percent."""
    if metric == "gain":
        before = float(np.mean(run.result.matrix.values[0][1:]))
        return _value(run, "transfer") - 100 * before
    value = run.result.summary[metric]
    return float("nan") if value is None else 100 * value


def _variance(values: Array) -> Variance | None:
    return pooled_variance(values) if len(values) > 1 else None


def _deviations(own: Spread) -> tuple[Estimate | None, Estimate | None]:
    orders, seeds = own.by_order, own.by_seed
    return orders and orders.deviation(), seeds and seeds.deviation()


def _joined(name: str, parts: Sequence[Spread]) -> Spread:
    return Spread(name, np.hstack([p.orders for p in parts]), np.hstack([p.seeds for p in parts]))
