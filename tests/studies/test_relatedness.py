"""Reading the study `relatedness`, from made-up runs of pairs whose numbers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.core.results.result import ProbeRecord
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import relatedness
from clbench.studies.runs import Estimate, Runs
from tests.studies.made_up_runs import make_run

IMAGES = 20
SECONDS = {
    "latin-1of2": ("latin-2of2", "greek-1of2", "flags-1of2", "terrain-1of2"),
    "clocks-1of2": ("clocks-2of2", "shapes-1of2", "flags-1of2", "terrain-1of2"),
}
COSINES = (0.9, 0.7, 0.5, 0.3)


def answers(share: float) -> list[bool]:
    return [i < round(share * IMAGES) for i in range(IMAGES)]


def make_pair(folder: Path, method: str, pair: tuple[str, str], lost: float, gained: float) -> Any:
    """A run that forgets a share of the first task, and knows more of the second before it."""
    shares = [[0.5, 0.3], [0.9, 0.3 + gained], [0.9 - lost, 0.8]]
    values = {"principal_rank": (0.6, 0.55, 0.5), "update_rank": (None, 0.1, 0.15)}
    spectrum = ProbeRecord(values=values, seconds=(0.0, 0.0, 0.0))
    rows = [[answers(share) for share in row] for row in shares]
    return make_run(
        folder,
        method,
        0,
        rows,
        tasks=pair,
        probes={"spectrum": spectrum},
        benchmark__order=list(pair),
    )


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """What is alike is forgotten most by fine-tuning, and helps most; NuSA-CL forgets nothing."""
    made, cosine = [], {}
    for first, seconds in SECONDS.items():
        cosine[first] = dict(zip(seconds, COSINES, strict=True))
        for second, alike in cosine[first].items():
            made.append(make_pair(tmp_path, "finetune", (first, second), alike / 2, alike / 2))
            made.append(make_pair(tmp_path, "nusa", (first, second), 0.0, 0.1))
    return Runs(made, {"cosine": cosine, "overlap": cosine})


def test_every_pair_has_a_row_with_its_kind(runs: Runs) -> None:
    rows = relatedness.table(runs).rows
    assert [row[3] for row in rows[:4]] == ["halves", "neighbours", "strangers", "strangers"]
    assert rows[0][:6] == ("finetune", "latin-1of2", "latin-2of2", "halves", 0.9, 0.9)
    forgetting, transfer, room, added = rows[0][6:]
    assert isinstance(forgetting, Estimate)
    assert isinstance(transfer, Estimate)
    assert forgetting.value == pytest.approx(45.0)
    assert forgetting.low < 45 < forgetting.high
    assert str(transfer).startswith("+45.0")
    assert (room, added) == pytest.approx((45.0, 5.0))


def test_means_by_kind_and_what_separates_them(runs: Runs) -> None:
    found = relatedness.numbers(runs)
    assert found["forgetting finetune halves"] == "45.0 [45.0, 45.0]"
    # Strangers lose 25 and 15 points of the same first task.
    assert found["Δforgetting finetune halves-strangers"] == "+25.0 [+25.0, +25.0]"
    assert found["Δforgetting nusa-finetune halves"] == "-45.0 [-45.0, -45.0]"
    assert found["cosine halves"] == "0.90"
    assert found["added nusa halves"] == "5.00 [5.00, 5.00]"
    assert found["room before"] == "40.00"
    assert found["forgetting nusa latin-1of2 greek-1of2"] == "0.0 [0.0, 0.0]"


def test_correlations_and_slopes_are_over_pairs(runs: Runs) -> None:
    found = relatedness.numbers(runs)
    assert found["r transfer finetune cosine"] == "1.00 [1.00, 1.00]"
    assert found["r within transfer finetune overlap"] == "1.00 [1.00, 1.00]"
    assert found["slope transfer finetune cosine"] == "+5.0 [+5.0, +5.0]"


def test_the_figure_has_a_panel_per_measure(runs: Runs) -> None:
    with figure_settings():
        axes = relatedness.draw(runs).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["Forgetting", "Transfer, gain", "Room", "Added"]
    assert [len(line.get_xdata()) for line in axes[0].lines[:2]] == [8, 8]
    assert axes[0].lines[0].get_linestyle() == "None"


def test_the_ends_of_a_smoke_run_are_enough_for_table_and_figure(runs: Runs) -> None:
    few = Runs(runs[:2], runs.measured)
    assert len(relatedness.table(few).rows) == 2
    with figure_settings():
        relatedness.draw(few)


def test_principal_directions_are_those_of_the_spread() -> None:
    spread = torch.tensor([[5.0, 0, 3.0], [5, 0, -3], [5, 1, 0], [5, -1, 0]]).double()
    found = relatedness.principal_directions(spread, 1)
    np.testing.assert_allclose(found.abs(), [[0], [0], [1]], atol=1e-12)


@pytest.mark.slow
def test_halves_of_a_domain_are_more_alike_than_strangers() -> None:
    found = relatedness.measure(quick=True)
    for key in relatedness.SIMILARITIES:
        latin = found[key]["latin-1of2"]
        assert latin["latin-1of2"] == pytest.approx(1.0)
        assert latin["latin-2of2"] > latin["textures-1of2"]
    assert found == relatedness.measure(quick=True)
