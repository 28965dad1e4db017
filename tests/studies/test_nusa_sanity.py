"""Reading the study `nusa-sanity`, from made-up runs."""

from pathlib import Path

import pytest

from clbench.core.results.result import ProbeRecord
from clbench.report.figures.style import figure_settings
from clbench.studies.answers import nusa_sanity
from clbench.studies.answers.nusa_sanity import SIDES
from clbench.studies.runs import Runs
from tests.studies.made_up_runs import make_run

RIGHT, WRONG = [[True] * 4] * 2, [[False] * 4] * 2
SHARES = {"m": 1e-12, "mv": 1e-6, "muv": 1e-3, "lora": 0.25, "finetune": 0.5}


def record(share: float) -> ProbeRecord:
    """Shares after two tasks, the second twice the first, and one weight that stands out."""
    values = dict.fromkeys((*SIDES.values(), "angle"), (None, share, 2 * share)) | {
        f"{value}/vision.0.attn.q_proj": (None, None, 8 * share) for value in SIDES.values()
    }
    return ProbeRecord(values=values, seconds=(0.0, 0.0, 0.0))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """All variants with tasks of one step and of 100; only with dropout and decay they learn."""
    found = []
    for variant, share in SHARES.items():
        for dropout, decay in ((0.0, 0.0), (0.25, 0.1)):
            for steps in (100, 1):
                settings = {"train__steps": steps, "train__weight_decay": decay}
                if variant != "finetune":
                    settings["method__dropout"] = dropout
                if variant.startswith("m"):
                    settings["method__trainable"] = variant  # type: ignore[assignment]
                method = "nusa" if variant.startswith("m") else variant
                rows = [WRONG, RIGHT if decay else WRONG, RIGHT if decay else WRONG]
                probes = {"spectrum": record(share * steps)}
                found.append(make_run(tmp_path, method, 0, rows, probes=probes, **settings))
    return Runs(found)


def test_shares_are_means_over_tasks(runs: Runs) -> None:
    found = nusa_sanity.numbers(runs)
    assert found["both m 1"] == found["left m 1 d0 w0"] == "1.5e-12"
    assert found["both m 100"] == "1.5e-10"
    assert found["right finetune 1 w0.1"] == "0.75"
    assert found["angle lora 1"] == "0.38"


def test_the_worst_weight_of_any_setting_is_told(runs: Runs) -> None:
    assert nusa_sanity.numbers(runs)["worst both m"] == "8e-10"


def test_what_was_learned_is_compared_with_m_alone(runs: Runs) -> None:
    found = nusa_sanity.numbers(runs)
    assert found["learned muv"] == "100.0 [100.0, 100.0]"
    assert found["Δlearned lora"] == "0.0 [0.0, 0.0]"


def test_every_run_has_a_row_and_shares_keep_their_magnitude(runs: Runs) -> None:
    table = nusa_sanity.table(runs)
    assert len(table.rows) == len(runs)
    texts = [cell.text for cell in table.grid().rows[0]]
    assert texts[:7] == ["NuSA-CL, M", "0.00", "0.0", "1", *["1.5e-12"] * 3]
    finetune = [row for row in table.rows if row[0] == "fine-tuning"]
    assert {row[1] for row in finetune} == {None}


def test_the_figure_has_a_panel_per_side(runs: Runs) -> None:
    with figure_settings():
        figure = nusa_sanity.draw(runs)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Outputs", "Inputs", "Both"]
    assert all(len(ax.lines) == len(SHARES) for ax in figure.axes)
