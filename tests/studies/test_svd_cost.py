"""Reading the study `svd-cost` from made-up times, and measuring small weights."""

from typing import Any

import pytest
import torch

from clbench.report.figures.style import figure_settings
from clbench.studies import decompositions
from clbench.studies.answers import svd_cost
from clbench.studies.decompositions import Tower
from clbench.studies.runs import Runs

WAYS = decompositions.WAYS
SMALL = Tower(width=16, layers=2, heads=2, mlp_ratio=4.0, tokens=5, causal=True)


def make_measured(models: list[str], kinds: tuple[str, ...] = ("cpu",)) -> dict[str, Any]:
    """Every weight takes a second in turn and half of it at once, every block 0.1 seconds."""
    seconds = {way: {"in turn": [1.0, 1.2, 1.1], "at once": [0.5, 0.5, 0.6]} for way in WAYS}
    error = {way: {"angle": 0.5, "energy": 1.0} for way in WAYS}
    towers = [tower for model in models for tower in decompositions.towers(model)]
    widths = [str(tower.width) for tower in towers]
    blocks = {
        svd_cost._block(tower, tokens): [0.1, 0.1, 0.1]
        for tower in towers
        for tokens in (None, svd_cost.CUT)
    }
    device = {"processor": "a CPU", "device": "a GPU", "threads": 2}
    own = {**device, "decompositions": dict.fromkeys(widths, seconds), "blocks": blocks}
    errors = dict.fromkeys([*widths, "embedded"], error)
    return {"torch": "2", **dict.fromkeys(kinds, own), "errors": errors}


@pytest.fixture
def runs() -> Runs:
    return Runs([], make_measured(list(svd_cost.MODELS.values())))


def test_a_model_has_four_weights_in_every_block(runs: Runs) -> None:
    rows = {row[1]: row for row in svd_cost.table(runs).rows}
    assert list(rows) == list(svd_cost.MODELS)
    assert rows["B/16"][2] == 4 * (12 + 12)
    assert rows["bigG/14"][2] == 4 * (48 + 32)


def test_times_are_those_of_all_weights_and_all_steps(runs: Runs) -> None:
    row = svd_cost.table(runs).rows[0]
    assert row[3:5] == pytest.approx((1.1 * 96, 0.5 * 96))
    training = 0.1 * 24 * 1000
    assert row[8] == pytest.approx(training / 3600)
    assert row[10] == pytest.approx(100 * 48 / training)
    found = svd_cost.numbers(runs)
    assert found["cpu B/32 svd"] == "48 (48 to 57.6)"
    assert found["cpu B/32 svd share"] == "2 (2 to 2.4)"
    # With 200 of the 1000 steps the share is ten percent; so it is if training takes a fifth.
    assert found["cpu B/32 steps 10%"] == "200 (200 to 240)"
    assert found["cpu B/32 faster 10%"] == "5 (4.17 to 5)"
    assert found["cpu svd 768 gain"] == "2 (1.83 to 2.4)"
    assert found["angle gram32"] == "0.5°"


def test_every_device_has_its_rows_and_panels() -> None:
    runs = Runs([], make_measured(list(svd_cost.MODELS.values()), ("cpu", "cuda")))
    table = svd_cost.table(runs)
    assert [row[0] for row in table.rows] == ["cpu"] * 6 + ["cuda"] * 6
    assert "cuda: a GPU" in table.notes[1]
    with figure_settings():
        assert len(svd_cost.draw(runs).axes) == 6


def test_a_smoke_run_has_one_model() -> None:
    runs = Runs([], make_measured(["ViT-B-32"]))
    assert [row[1] for row in svd_cost.table(runs).rows] == ["B/32"]
    with figure_settings():
        titles = [ax.get_title(loc="left") for ax in svd_cost.draw(runs).axes]
    assert titles == ["One weight", "All weights", "Largest angle"]


def test_sizes_are_those_of_open_clip() -> None:
    vision, text = decompositions.towers("ViT-g-14")
    assert (vision.width, vision.layers, vision.heads, vision.tokens) == (1408, 40, 16, 257)
    assert (text.width, text.layers, text.heads, text.tokens) == (1024, 24, 16, 77)
    models = list(svd_cost.MODELS.values())
    assert decompositions.widths(models) == [512, 768, 1024, 1280, 1408, 1664]


def test_exact_ways_find_the_tail_and_a_randomised_one_does_not() -> None:
    found = decompositions.errors(decompositions.random_weight(96), 16)
    assert found["gram64"]["angle"] < 1e-6
    assert 0 < found["svd"]["angle"] < 0.1
    assert found["svd"]["angle"] < found["randomised"]["angle"]
    # Other directions than the smallest hold more of the weight.
    assert found["randomised"]["energy"] > 1
    assert found["svd"]["energy"] == pytest.approx(1, abs=1e-4)


def test_every_way_gives_orthonormal_directions() -> None:
    weight = decompositions.random_weight(48)
    for way in WAYS.values():
        for side in way(weight, 8):
            assert side.shape == (48, 8)
            torch.testing.assert_close(side.T @ side, torch.eye(8, dtype=side.dtype))


def test_decompositions_are_timed_in_both_ways() -> None:
    found = decompositions.decomposition_seconds(decompositions.random_weight(16), 4, 2)
    assert set(found) == set(WAYS)
    assert all(len(found[way][how]) == 2 for way in WAYS for how in ("in turn", "at once"))
    assert min(found["svd"]["in turn"]) > 0


def test_a_block_is_timed_with_its_update() -> None:
    seconds = decompositions.block_seconds(SMALL, 3, 2, torch.device("cpu"), tokens=4)
    assert len(seconds) == 2
    assert min(seconds) > 0


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with decompositions.all_threads() as threads:
        assert threads == torch.get_num_threads() >= 1
    assert torch.get_num_threads() == before
