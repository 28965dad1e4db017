"""Every committed study: its file is whole, its grid plans, its answer names what exists."""

from pathlib import Path

import pytest

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.studies.study import QUICK_TASKS, find_study, thinned

ROOT = Path(__file__).parents[2]
NAMES = registry.study_names()


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_plans_and_shrinks_for_a_smoke_run(name: str) -> None:
    study = find_study(name)
    planned, quick = study.planned({}), study.planned({}, quick=True)
    if study.file.runs is None:
        assert not planned
        assert hasattr(study.module, "measure")
        return
    assert 0 < len(quick) <= len(planned)
    assert {settings.seed for settings, _ in quick} == {0}
    assert all((settings.first_tasks or 0) <= QUICK_TASKS for settings, _ in quick)
    fingerprints = [(s.method.name, s.fingerprint(), s.seed) for s, _ in planned]
    assert len(set(fingerprints)) == len(fingerprints)


@pytest.mark.parametrize("name", NAMES)
def test_the_module_reads_what_the_file_asks(name: str) -> None:
    module = find_study(name).module
    assert all(callable(getattr(module, part)) for part in ("table", "draw", "numbers"))


def test_a_study_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ClbenchError, match="rho-scan"):
        find_study("rho-scam")


def test_settings_of_single_runs_are_no_studies() -> None:
    assert "condu-dataset" in {n.partition("/")[2] for n in registry.recipe_names()}
    with pytest.raises(ClbenchError, match="study"):
        find_study("condu-dataset")


def test_a_file_that_is_not_whole_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "read_recipe", lambda *_: {"question": "?", "titel": "x"})
    with pytest.raises(ClbenchError, match=r"^study rho-scan: [a-z]+: ") as caught:
        find_study("rho-scan")
    assert "\n" not in str(caught.value)


def test_overrides_reach_every_run() -> None:
    planned = find_study("rho-scan").planned({"train.steps": 3})
    assert {settings.train.steps for settings, _ in planned} == {3}


def test_lists_of_blocks_are_thinned_one_by_one() -> None:
    grid = [{"methods": ["nusa", "lora", "l2"], "seeds": [0, 1], "method.rank": [1, 2, 3]}]
    small = thinned({"benchmarks": ["mini"], "orders": ["I", "II", "III"], "grid": grid})
    assert small["orders"] == ["I", "III"]
    assert small["grid"] == [
        {"methods": ["nusa", "lora", "l2"], "seeds": [0], "method.rank": [1, 3]}
    ]
