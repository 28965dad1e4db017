"""Ranks, tests and correlations against cases worked out by hand and by Demšar (2006)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clbench.core.task import Setting
from clbench.report.ranks.figures import bar_columns
from clbench.report.ranks.measures import (
    agreement,
    alike,
    average_ranks,
    critical_difference,
    friedman,
)
from clbench.report.ranks.write import write_ranks
from tests.made_up import INCREMENTAL, VALUES, make_result, shifted


def test_equal_scores_share_their_mean_rank() -> None:
    scores = [[0.9, 0.5, 0.5], [0.8, 0.9, 0.1], [0.3, 0.3, 0.3]]
    assert average_ranks(scores) == pytest.approx([(1 + 2 + 2) / 3, (2.5 + 1 + 2) / 3, 7.5 / 3])


def test_friedman_is_the_formula_of_average_ranks() -> None:
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.6, 0.5, 0.4], [0.2, 0.3, 0.1]])
    ranks = [(1 + 1 + 1 + 2) / 4, (2 + 3 + 2 + 1) / 4, (3 + 2 + 3 + 3) / 4]
    expected = 12 * 4 / (3 * 4) * (sum(r * r for r in ranks) - 3 * 16 / 4)
    statistic, p = friedman(scores)
    assert statistic == pytest.approx(expected)
    assert p == pytest.approx(math.exp(-expected / 2)), "chi-squared with two degrees of freedom"
    assert all(map(math.isnan, friedman(np.full((4, 3), 0.5))))


@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_those_of_the_published_quantiles(methods: int, q: float) -> None:
    expected = q * math.sqrt(methods * (methods + 1) / (6 * 11))
    assert critical_difference(methods, 11) == pytest.approx(expected, abs=2e-3)


def test_groups_are_as_large_as_can_be() -> None:
    assert alike([1.0, 1.5, 2.2, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert alike([1.0, 2.0, 3.0], 5.0) == [(0, 2)]
    assert alike([1.0, 2.0, 3.0], 1.0) == [], "at the critical difference methods differ"
    assert bar_columns([(0, 2), (1, 3), (3, 5)]) == [0, 1, 0]


def test_agreement_of_two_orders() -> None:
    tau, rho = agreement([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.4])
    assert tau == pytest.approx((5 - 1) / 6)
    assert rho == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert agreement([1, 2, 3], [3, 2, 1]) == pytest.approx((-1, -1))
    assert all(map(math.isnan, agreement([1, 1, 1], [1, 2, 3])))


def test_a_report_of_three_methods_has_their_ranks(tmp_path: Path) -> None:
    results = [
        *(make_result("first", seed, shifted(-0.02 * seed)) for seed in (0, 1)),
        make_result("second", 0, shifted(-0.1)),
        make_result("third", 0, shifted(-0.2)),
        make_result("bound", 0, VALUES, needs=("all-data",)),
    ]
    names = {path.relative_to(tmp_path).as_posix() for path in write_ranks(results, tmp_path)}
    assert {"ranks.md", "ranks.csv", "figures/ranks.svg"} <= names
    assert "rank-correlation.md" not in names
    frame = pd.read_csv(tmp_path / "ranks.csv", index_col="method")
    assert frame["average_rank"].to_dict() == {"first": 1, "second": 2, "third": 3}
    assert frame.loc["second", "arrows"] == pytest.approx(0.6)
    assert "p = 0.05." in (tmp_path / "ranks.md").read_text(), "exp(-3)"
    svg = (tmp_path / "figures/ranks.svg").read_text()
    assert all(f"<!-- {name} -->" in svg for name in ("first", "second", "third"))


def test_benchmarks_are_compared_where_they_have_three_methods_in_common(tmp_path: Path) -> None:
    amounts = {"a": 0.0, "b": -0.05, "c": -0.1}
    results = [make_result(name, 0, shifted(by)) for name, by in amounts.items()]
    results += [make_result(name, 0, shifted(-by), benchmark="two") for name, by in amounts.items()]
    steps = {"setting": Setting.CLASS_INCREMENTAL, "benchmark": "steps"}
    results += [make_result(name, 0, INCREMENTAL, **steps) for name in ("a", "b")]
    names = [path.relative_to(tmp_path).as_posix() for path in write_ranks(results, tmp_path)]
    assert "mini-I-ViT-B-16/ranks.md" in names
    assert not any(name.startswith("steps") for name in names), "two methods"
    frame = pd.read_csv(tmp_path / "rank-correlation.csv")
    assert frame[["methods", "kendall_tau"]].to_numpy().tolist() == [[3, pytest.approx(-1)]]
