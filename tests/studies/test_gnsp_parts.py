"""Reading the study `gnsp-parts`, from made-up runs, and what it measures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clbench.core.results.result import ProbeRecord
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import gnsp_parts
from clbench.studies.null_space import WAYS, measure_leaving
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

COUNT = 20
ALL = "gradient+distillation+alignment"
MEASURED = {name: {"1": {"outside": 0.25, "change": 0.01}} for name in ("none", "gradient")}


def images(share: float) -> list[bool]:
    return [i < round(share * COUNT) for i in range(COUNT)]


def probes(drift: float) -> dict[str, ProbeRecord]:
    values = {
        "drift": {
            "earlier": (None, None, 9.0),
            "earlier/vision.0.mlp.c_fc": (None, None, drift),
            "earlier/vision.0.mlp.c_proj": (None, None, 3 * drift),
            "earlier/text.0.mlp.c_fc": (None, None, 9.0),
        },
        "gap": {"gap": (0.7, 0.72, 0.75)},
        "retrieval": {"mini_i2t_r1": (0.6, 0.5, 0.5), "mini_t2i_r1": (0.4, 0.3, 0.25)},
    }
    return {name: ProbeRecord(values=v, seconds=(0.0,) * 3) for name, v in values.items()}


def run(folder: Path, kept: float, learned: float = 0.8, **settings: Any) -> Any:
    """Two tasks, of which the first keeps a share; GNSP takes twice the time of fine-tuning."""
    method = "gnsp" if settings else "finetune"
    rows = [[0.5, 0.5], [learned, 0.5], [kept, learned]]
    answers = [[images(x) for x in row] for row in rows]
    cost = {"training_seconds": 20.0 if settings else 10.0, "overhead_seconds": 0.0}
    cost["stored"] = 2_500_000 if settings else 0
    return make_run(folder, method, 0, answers, probes=probes(1 - kept), cost=cost, **settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every part adds a tenth to what the first task keeps; other rates only with all losses."""
    tmp_path = tmp_path_factory.mktemp("runs")
    found = [run(tmp_path, 0.3)]
    for projection in gnsp_parts.PROJECTIONS:
        for losses in ((0.0, 0.0), (1.0, 0.0), (0.0, 0.75), (1.0, 0.75)):
            for rate, learned in ((gnsp_parts.USUAL, 0.8), (1.1e-3, 1.0)):
                if rate != gnsp_parts.USUAL and losses != (1.0, 0.75):
                    continue
                parts = (projection != "none") + sum(map(bool, losses))
                settings = {
                    "method__projection": projection,
                    "method__distillation": losses[0],
                    "method__alignment": losses[1],
                    "train__lr": rate,
                }
                found.append(run(tmp_path, 0.4 + parts / 10, learned, **settings))
    return Runs(found, MEASURED)


@pytest.fixture(scope="module")
def found(runs: Runs) -> Mapping[str, str]:
    return gnsp_parts.numbers(runs)


def test_parts_are_compared_with_all_none_and_fine_tuning(found: Mapping[str, str]) -> None:
    assert found[f"last {ALL}"].startswith("75.0 [")
    assert found["Δlast no part"].startswith("-15.0 [")
    assert found["Δlast gradient+alignment bare"].startswith("+10.0 [")
    assert found["Δlast update plain"].startswith("+10.0 [")
    assert found[f"last {ALL} 0.0011"].startswith("85.0 [")
    assert found["forgetting fine-tuning"] == "50.0"


def test_what_is_kept_and_what_it_costs_has_names(found: Mapping[str, str]) -> None:
    assert found["drift gradient"] == "100"  # the mean of 0.5 and 1.5
    assert (found["gap before"], found["gap gradient"]) == ("0.7", "0.75")
    assert (found["retrieval before"], found["retrieval gradient"]) == ("50", "37.5")
    assert (found["time update"], found["stored update"]) == ("2.00", "2.5")
    assert found["time fine-tuning"] == "1.00"


def test_projections_are_compared_where_they_learned_the_same(found: Mapping[str, str]) -> None:
    assert found["=learned none"] == "90.0"
    assert found["=last none"].startswith("-5.0 [")
    assert found["=last update"] == "0.0 [0.0, 0.0]"
    assert found["=forgetting none"] == "+10.0"


def test_measured_shares_are_percent(runs: Runs, found: Mapping[str, str]) -> None:
    assert (found["outside gradient 1"], found["change none 1"]) == ("25", "1")
    note = gnsp_parts.table(runs).notes[-1]
    assert note.endswith("after 1 steps, in percent: none 25; gradient 25.")


def test_rows_begin_with_fine_tuning_and_end_with_all_parts(runs: Runs) -> None:
    rows = gnsp_parts.table(runs).rows
    assert len(rows) == len(runs)
    assert [row[:2] for row in rows[:2]] == [("fine-tuning", "own"), ("no part", "0.00056")]
    assert rows[-1][0] == "update+distillation+alignment"


def test_the_figure_has_a_row_per_variant_at_one_rate(runs: Runs) -> None:
    few = runs.only(lambda one: one.setting("method.projection") != "update")
    for some, count in ((runs, 13), (few, 9)):
        with figure_settings():
            figure = gnsp_parts.draw(some)
        assert len(figure.axes[0].get_yticks()) == count
        assert [ax.get_xlabel() for ax in figure.axes] == ["Transfer", "Last", "Drift, %", "Gap"]


@pytest.mark.slow
def test_only_the_projected_update_stays_in_the_null_space() -> None:
    found = measure_leaving({"train.lr": 4e-4, "method.rho": 0.15}, quick=True)
    assert set(found) == set(WAYS)
    last = {name: list(steps.values())[-1]["outside"] for name, steps in found.items()}
    assert last["update"] < 1e-6
    assert last["gradient under SGD"] < 1e-6
    assert last["update"] < last["gradient"] < last["none"]
