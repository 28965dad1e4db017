"""Reading the study `persistent-or-init`, from made-up runs."""

from collections.abc import Mapping
from typing import Any

import pytest

from clbench.core.results.result import ProbeRecord
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import persistent_or_init
from clbench.studies.answers.persistent_or_init import VARIANTS
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

COUNT = 20
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "m": ("nusa", {"method__trainable": "m"}),
    "mv": ("nusa", {"method__trainable": "mv"}),
    "muv": ("nusa", {"method__trainable": "muv"}),
    "milora": ("milora", {}),
    "tail": ("lora", {"method__start": "tail"}),
    "random": ("lora", {"method__start": "random"}),
}
KEPT = {"m": 0.9, "random": 0.45}
"""Accuracy on the first task in the end at the middle learning rate; 0.5 for all others."""


def images(share: float) -> list[bool]:
    return [i < round(share * COUNT) for i in range(COUNT)]


def record(share: float) -> ProbeRecord:
    names = persistent_or_init.INSIDE.values()
    return ProbeRecord(values=dict.fromkeys(names, (None, 0.0, share)), seconds=(0.0,) * 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three learning rates each; what is learned grows with the rate, and the middle keeps most."""
    tmp_path = tmp_path_factory.mktemp("runs")
    found = []
    for key, (method, settings) in SETTINGS.items():
        for rate, learned in ((0.001, 0.6), (0.002, 0.8), (0.004, 1.0)):
            kept = KEPT.get(key, 0.5) if rate == 0.002 else 0.0
            rows = [[0.5, 0.5], [learned, 0.5], [kept, learned]]
            answers = [[images(x) for x in row] for row in rows]
            probes = {"spectrum": record(0.5)}
            run = make_run(tmp_path, method, 0, answers, probes=probes, train__lr=rate, **settings)
            found.append(run)
    return Runs(found)


def test_the_made_up_runs_are_told_apart(runs: Runs) -> None:
    assert all(len(runs.where(**settings)) == 3 for _, settings in VARIANTS.values())


@pytest.fixture(scope="module")
def found(runs: Runs) -> Mapping[str, str]:
    return persistent_or_init.numbers(runs)


def test_each_variant_is_taken_at_its_best_rate(found: Mapping[str, str]) -> None:
    assert (found["lr m"], found["end m"]) == ("0.002", "middle")
    assert found["last m"].startswith("85.0 [")
    assert found["Δlast mv"].startswith("-20.0 [")
    assert found["Δlast mv random"].startswith("+2.5 [")
    assert found["Δlast m"] == "0.0 [0.0, 0.0]"
    assert found["last mv 0.004"].startswith("50.0 [")
    assert found["forgetting random"] == "35.0"
    assert found["both tail"] == "25"


def test_variants_are_compared_where_they_learned_the_same(found: Mapping[str, str]) -> None:
    assert found["=learned mv"] == "80.0"
    assert found["=last mv"].startswith("-20.0 [")
    assert found["=forgetting mv"] == "+40.0"
    assert found["=transfer mv"] == "0.0 [0.0, 0.0]"


def test_the_end_of_the_grid_is_told(runs: Runs) -> None:
    found = persistent_or_init.numbers(runs.only(lambda run: run.setting("train.lr") > 0.001))
    assert found["end m"] == "first"


def test_the_best_runs_are_marked(runs: Runs) -> None:
    rows = persistent_or_init.table(runs).rows
    assert len(rows) == len(runs)
    assert [row[1] for row in rows if row[2] == "best"] == [0.002] * len(VARIANTS)


def test_the_figure_has_a_panel_per_metric(runs: Runs) -> None:
    few = runs.only(lambda run: run.setting("train.lr") != 0.002)
    for some in (runs, few):
        with figure_settings():
            figure = persistent_or_init.draw(some)
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert titles == list(persistent_or_init.METRICS.values())
