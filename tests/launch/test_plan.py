"""Which runs `clbench compare` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clbench import config, registry
from clbench.core.errors import ClbenchError
from clbench.launch.plan import parse_seeds, plan

LORA_RANK = config.resolve("lora", "mini")[0].method.params["rank"]
"""Of the recipe."""


def made(*arguments: object, **options: object) -> list[tuple[str, int, dict[str, object]]]:
    """Method, seed and rank of every planned run."""
    planned = plan(*arguments, **options)  # type: ignore[arg-type]
    return [(s.method.name, s.seed, s.method.params.get("rank")) for s, _ in planned]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2,5-7", [0, 2, 5, 6, 7]),
        (" 3 , 1 - 2 ", [3, 1, 2]),
        ("4-4", [4]),
        ("0-2,1,2-3", [0, 1, 2, 3]),
        ("4294967295", [4294967295]),
    ],
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected whole numbers and ranges"),
        ("0,", "expected whole numbers and ranges"),
        ("-3", "expected whole numbers and ranges"),
        ("0-2-4", "expected whole numbers and ranges"),
        ("0..4", "expected whole numbers and ranges"),
        ("1.5", "expected whole numbers and ranges"),
        ("4-0", "4-0 runs backwards"),
        ("0-9999999999", "more than 1000"),
        ("0-999,2000", "more than 1000"),
    ],
)
def test_other_seeds_are_refused(text: str, message: str) -> None:
    with pytest.raises(ClbenchError, match=message):
        parse_seeds(text)


def test_a_seed_too_large_is_named() -> None:
    with pytest.raises(ClbenchError, match="seed=4294967296"):
        plan("mini", ["zeroshot"], parse_seeds("4294967296"))


def test_all_methods_come_with_one_seed_before_the_next() -> None:
    names = registry.method_names()
    expected = [(name, seed) for seed in (0, 1, 2) for name in names]
    assert [(name, seed) for name, seed, _ in made("mini")] == expected


def test_smoke_runs_come_once_unless_seeds_are_named(study: Path) -> None:
    assert made("mini", ["lora"], quick=True) == [("lora", 0, LORA_RANK)]
    assert [seed for _, seed, _ in made("mini", ["lora"], [1, 2], quick=True)] == [1, 2]
    assert [seed for _, seed, _ in made(None, ["lora"], config_file=study, quick=True)] == [3, 4]


def test_a_method_named_twice_runs_once() -> None:
    assert made("mini", ["lora", "lora"], [1, 1]) == [("lora", 1, LORA_RANK)]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    text = """
    benchmark: mini-5shot
    methods: {nusa: {rank: 7}, lora: }
    seeds: 3-4
    train: {steps: 5}
    """
    return write(tmp_path / "study.yaml", text)


def test_a_file_describes_a_whole_comparison(study: Path) -> None:
    planned = plan(config_file=study)
    assert {s.benchmark.name for s, _ in planned} == {"mini-5shot"}
    assert {s.train.steps for s, _ in planned} == {5}
    assert made(config_file=study) == [
        ("nusa", 3, 7),
        ("lora", 3, LORA_RANK),
        ("nusa", 4, 7),
        ("lora", 4, LORA_RANK),
    ]


def test_the_command_line_goes_before_the_file(study: Path) -> None:
    overrides = {"train.steps": 9, "method.rank": 5}
    (settings, _), *others = plan("mini", ["nusa"], [0], config_file=study, overrides=overrides)
    assert not others
    assert (settings.benchmark.name, settings.train.steps) == ("mini", 9)
    assert settings.method.params["rank"] == 5
    # The hyper-parameters of the file are those of the method that they stand at.
    assert made(None, ["nusa", "milora"], [0], config_file=study)[0] == ("nusa", 0, 7)
    milora = made(None, ["milora"], [0])[0]
    assert made(None, ["milora"], [0], config_file=study)[0] == milora
    assert milora[2] != 7


def test_the_file_of_a_single_run_can_be_compared(tmp_path: Path) -> None:
    single = write(tmp_path / "single.yaml", "method: {name: nusa, rank: 7}\nseed: 4\n")
    assert made(config_file=single) == [("nusa", 4, 7)]
    assert made(None, ["lora", "nusa"], config_file=single) == [
        ("lora", 4, LORA_RANK),
        ("nusa", 4, 7),
    ]


def test_a_section_without_a_name_is_every_methods(tmp_path: Path) -> None:
    text = "method: {rank: 6}\nmethods: {lora: {alpha: 3.0}, nusa: {rank: 7}}\nseeds: [0]\n"
    shared = write(tmp_path / "shared.yaml", text)
    assert made(config_file=shared) == [("lora", 0, 6), ("nusa", 0, 7)]
    assert plan(config_file=shared)[0][0].method.params["alpha"] == 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: 3", "'methods' must be a list of names"),
        ("methods: [1, 2]", "'methods' must be a list of names"),
        ("methods: {nusa: 16}", "'methods' must be a list of names"),
        ("methods: [nusaa]", "did you mean 'nusa'"),
        ("methods: {nusa: {rnak: 1}}", "did you mean 'method.rank'"),
        ("methods: [nusa]\nmethod: lora", "either 'methods' or a 'method' with a name"),
        ("seeds: 4-0", "runs backwards"),
        ("seeds: [0, x]", "'seeds' must be whole numbers"),
        ("seeds: {a: 1}", "'seeds' must be whole numbers"),
        ("seed: true", "'seeds' must be whole numbers"),
        ("sedes: 0", "did you mean"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ClbenchError, match=message):
        plan(config_file=write(tmp_path / "wrong.yaml", text))


def test_a_seed_among_the_settings_is_not_ignored() -> None:
    with pytest.raises(ClbenchError, match="--seeds"):
        plan("mini", overrides={"seed": 3})
