"""Grids resolve to command lines that make exactly what was planned."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from clbench import config
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.engine.rundir.directory import run_path
from clbench.launch.grid import command_of, make_cells, parse_grid, sweep

RUNS = Path("some runs")


def planned(text: str, **options: Any) -> list[tuple[str, str, int, Any]]:
    """Method, benchmark, seed and rank of every run of a file."""
    found = sweep(yaml.safe_load(text), **options)
    return [
        (s.method.name, s.benchmark.name, s.seed, s.method.params.get("rank")) for s, _ in found
    ]


def test_all_combinations_are_planned() -> None:
    text = (
        "{benchmarks: [mini, mini-5shot], methods: [nusa], seeds: 0-1, grid: {method.rank: [8, 9]}}"
    )
    expected = [
        ("nusa", benchmark, seed, rank)
        for benchmark in ("mini", "mini-5shot")
        for rank in (8, 9)
        for seed in (0, 1)
    ]
    assert planned(text) == expected


def test_a_grid_may_hold_for_some_methods_only() -> None:
    text = """
    seeds: [3]
    grid:
      - {methods: [nusa], method.rank: [4, 5]}
      - {methods: [lora, milora], method.rank: [6]}
    """
    assert [run[::3] for run in planned(text)] == [
        ("nusa", 4), ("nusa", 5), ("lora", 6), ("milora", 6),
    ]  # fmt: skip


def test_of_methods_and_seeds_of_a_grid_only_those_asked_for_are_planned() -> None:
    text = """
    methods: all
    grid:
      - {methods: [nusa, lora], seeds: [0, 1], method.rank: [4]}
      - {methods: [milora], seeds: [0], method.rank: [6]}
      - {seeds: [2], method.rank: [8]}
    """
    assert [run[::2] for run in planned(text, methods=["lora"], seeds=[1, 2])] == [
        ("lora", 1), ("lora", 2),
    ]  # fmt: skip
    assert [run[::3] for run in planned(text, methods="all", seeds=[0])] == [
        ("nusa", 4), ("lora", 4), ("milora", 6),
    ]  # fmt: skip
    with pytest.raises(ClbenchError, match="no run of the grid has the methods and seeds"):
        planned(text, seeds=[7])
    with pytest.raises(ClbenchError, match="did you mean 'nusa'"):
        planned("grid: [{methods: [nusa], method.rank: [4]}]", methods=["nusa", "nuss"])


def test_orders_and_backbones_are_axes() -> None:
    tree = {
        "benchmarks": ["mtil-5shot"],
        "methods": ["zeroshot"],
        "seeds": [0],
        "orders": ["I", "II"],
        "backbones": ["ViT-B-16", "ViT-B-32/laion2b_s34b_b79k"],
    }
    found = [(s.backbone.model, s.benchmark.options["order"]) for s, _ in sweep(tree)]
    assert found == [
        ("ViT-B-16", "I"), ("ViT-B-16", "II"), ("ViT-B-32", "I"), ("ViT-B-32", "II"),
    ]  # fmt: skip


def test_all_mistakes_are_told_at_once() -> None:
    tree = {"methods": ["nusa"], "seeds": [0], "grid": {"method.rnak": [1], "train.lr": [-1, -2]}}
    with pytest.raises(ClbenchError) as caught:
        sweep(tree)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any("did you mean 'method.rank'" in line for line in lines)
    assert any("train.lr=-1" in line for line in lines)
    assert any("train.lr=-2" in line for line in lines)


@pytest.mark.parametrize("grid", ["8", "{method.rank: 8}", "{method.rank: []}", "[8]"])
def test_a_grid_without_lists_is_refused(grid: str) -> None:
    with pytest.raises(ClbenchError, match="'grid' must map dotted keys to lists"):
        planned(f"{{methods: [nusa], grid: {grid}}}")


@pytest.mark.parametrize("text", ["method.rank", "=8", "method.rank="])
def test_half_a_grid_on_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(ClbenchError, match="--grid"):
        parse_grid([text])


SETTINGS: list[dict[str, Any]] = [
    {},
    {"method.rank": 3, "train.lr": 1e-5, "train.steps": 7},
    {"train.betas": [0.9, 0.95], "backbone.model": "ViT-B-32", "backbone.weights": "openai"},
    {"train.lr": {"default": 1e-4, "digits": 3e-4}, "train.clip_grad_norm": 1},
    {"data_root": "/data/with space", "logger": "csv,tensorboard", "precision": "bf16"},
    {"device": "cpu", "deterministic": True, "checkpoint_every.steps": 5, "workers": 0},
    {"train.epochs": 0.5, "benchmark.shots": 3, "evaluation.batch_size": 32},
]


@pytest.mark.parametrize("overrides", SETTINGS)
@pytest.mark.parametrize("quick", [False, True])
def test_the_command_line_of_a_cell_resolves_to_the_same_settings(
    overrides: dict[str, Any], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = config.resolve("nusa", "mini", overrides={**overrides, "seed": 4}, quick=quick)
    reached: list[Any] = []

    def run_resolved(found: Any, cls: Any, runs_dir: Path, *_: Any, **__: Any) -> None:
        reached.extend([found, runs_dir])
        raise ClbenchError("far enough")

    monkeypatch.setattr("clbench.api.run_resolved", run_resolved)
    command = command_of(settings, RUNS)
    CliRunner().invoke(app, shlex.split(shlex.join(command)))
    assert reached == [settings, RUNS]


def test_a_cell_names_its_run_directory_and_what_it_varies() -> None:
    tree = {"methods": ["nusa", "lora"], "seeds": [0, 1], "grid": {"train.lr": [1e-4, 3e-4]}}
    runs = sweep(tree)
    cells = [cell for cell, _ in make_cells([*runs, *runs], RUNS)]
    assert len(cells) == 8, "each run once"
    for cell, (settings, _) in zip(cells, runs, strict=True):
        assert cell.path == run_path(RUNS, settings) == RUNS / cell.key
    assert cells[0].title == "nusa on mini, seed 0 (train.lr=0.0001)"
    assert cells[0].command_line == (
        "clbench run --method nusa --benchmark mini --seed 0 --set train.lr=0.0001 "
        "--runs-dir 'some runs'"
    )
