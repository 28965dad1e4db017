"""What the name of a run directory is made of: complete, and the same from version to version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from clbench import registry
from clbench.core import identity
from clbench.core.identity import (
    FIRST,
    INDIFFERENT,
    LATER,
    LATER_PARAMS,
    RENAMED,
    decisive,
    settings_hash,
)
from clbench.core.settings import RunSettings, TrainSettings

FIRST_RELEASE = json.loads((Path(__file__).parent / "first_release.json").read_text())
"""Settings of runs of version 0.1.0 with their hashes, as its result files have them."""
DEFAULT_HASH = "07d62490"
"""Of all defaults, as the first release had it; a change breaks every existing run directory."""


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and default of every setting; sections are looked into."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.get_default(call_default_factory=True)


def unlisted(model: type[BaseModel]) -> list[str]:
    """Settings about which nobody has decided whether they make another run."""
    listed = INDIFFERENT | FIRST | LATER.keys()
    names = [name for name, _ in fields_of(model)]
    return [n for n in names if n not in listed and n.partition(".")[0] not in INDIFFERENT]


def hashed(**changes: Any) -> str:
    """The hash of all defaults but for some settings, by dotted key with ``__`` for the dot."""
    settings = RunSettings().model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split("__")
        node = settings
        for section in sections:
            node = node[section]
        node[name] = value
    return settings_hash(settings)


def test_every_setting_is_listed() -> None:
    assert unlisted(RunSettings) == [], "list new settings in LATER of clbench/core/identity.py"


def test_hyper_parameters_that_came_later_leave_old_runs_where_they_are() -> None:
    before = hashed(method__name="lora", method__params={"rank": 8})
    assert hashed(method__name="lora", method__params={"rank": 8, "start": "random"}) == before
    assert hashed(method__name="lora", method__params={"rank": 8, "start": "tail"}) != before


@pytest.mark.parametrize("name", LATER_PARAMS)
def test_their_defaults_are_those_they_came_with(name: str) -> None:
    """A default that changes must not change which runs are meant: it has to be set by recipes."""
    schema = registry.method(name).schema()
    assert {k: schema[k].default for k in LATER_PARAMS[name]} == LATER_PARAMS[name]


def test_options_that_came_later_leave_old_runs_where_they_are() -> None:
    before = hashed(benchmark__options={"shots": None, "order": "I"})
    assert hashed(benchmark__options={"shots": None, "order": "I", "splits": "zscl"}) == before
    assert hashed(benchmark__options={"shots": None, "order": "I", "splits": "coop"}) != before


def test_a_new_setting_is_noticed() -> None:
    class Train(TrainSettings):
        ema: float = 0.0

    class Settings(RunSettings):
        train: Train = Train()
        colour: str = "red"

    assert unlisted(Settings) == ["train.ema", "colour"]


def test_every_entry_stands_for_a_setting_and_only_one() -> None:
    names = {name for name, _ in fields_of(RunSettings)}
    sections = {name.partition(".")[0] for name in names}
    assert FIRST | LATER.keys() <= names
    assert names | sections >= INDIFFERENT
    assert not FIRST & LATER.keys()


def test_later_settings_have_the_defaults_that_they_came_with() -> None:
    """If one is changed on purpose, runs with the new default rightly get another hash."""
    defaults = {name: value for name, value in fields_of(RunSettings) if name in LATER}
    assert defaults == dict(LATER)


def test_the_hash_of_all_defaults_stays() -> None:
    assert hashed() == RunSettings().fingerprint() == DEFAULT_HASH


@pytest.mark.parametrize(("key", "section"), [("train.ema", "train"), ("colour", None)])
def test_a_later_setting_leaves_the_hash_at_its_default_only(
    key: str, section: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LATER", {**LATER, key: "off"})
    settings = RunSettings().model_dump(mode="json")
    node = settings if section is None else settings[section]
    for value in ("off", "on"):
        node[key.rpartition(".")[2]] = value
        assert (settings_hash(settings) == hashed()) == (value == "off")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train__lr", 2e-5),
        ("train__optimizer", "sgd"),
        ("train__momentum", 0.9),
        ("train__schedule", "linear"),
        ("train__epochs", 1.0),
        ("method__params", {"rank": 4}),
        ("benchmark__options", {"shots": 5}),
        ("precision", "bf16"),
        ("devices", 2),
        ("deterministic", True),
        ("quick", True),
    ],
)
def test_settings_that_can_change_a_number_change_the_hash(key: str, value: Any) -> None:
    assert hashed(**{key: value}) != hashed()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 3),  # it stands in the directory's name
        ("device", "cuda"),
        ("workers", 4),
        ("data_root", "/data"),
        ("logger", ["wandb"]),
        ("compile", True),
        ("checkpoint_every__steps", 10),
        ("evaluation__batch_size", 17),
    ],
)
def test_settings_that_change_no_number_do_not(key: str, value: Any) -> None:
    assert hashed(**{key: value}) == hashed()


def test_the_batch_size_of_tests_counts_for_methods_that_decide_by_it() -> None:
    def by_batch(size: int) -> str:
        return hashed(method__decides_by_batch=True, evaluation__batch_size=size)

    assert len({by_batch(64), by_batch(256), hashed()}) == 3


def test_an_old_name_of_the_weights_is_understood_and_hashes_the_same() -> None:
    ((old, new),) = RENAMED.items()
    named = [
        RunSettings.model_validate({"backbone": {"model": "mini", "weights": weights}})
        for weights in (old, new)
    ]
    assert [settings.backbone.weights for settings in named] == [new, new]
    assert named[0].fingerprint() == named[1].fingerprint()
    assert decisive(named[1].model_dump(mode="json"))["backbone"]["weights"] == old


@pytest.mark.parametrize("old", FIRST_RELEASE, ids=lambda old: old["config"]["method"]["name"])
def test_runs_of_the_first_release_are_found_again(old: dict[str, Any]) -> None:
    config = old["config"]
    assert config["backbone"]["weights"] in RENAMED
    assert "optimizer" not in config["train"]
    assert RunSettings.model_validate(config).fingerprint() == old["config_hash"]
