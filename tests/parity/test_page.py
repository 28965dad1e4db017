"""The committed measurements keep the bound, and docs/parity.md says what they say."""

from __future__ import annotations

import numpy as np
import pytest

from clbench import config
from clbench.core.foreign.yaml_text import load_yaml
from clbench.core.results.matrix import AccuracyMatrix
from clbench.launch.grid import sweep
from tests.parity import page
from tests.parity.matrices import FOLDER, ROOT, Matrices, read_all

BEYOND = {"gnsp"}
"""Methods whose implementations differ by more than the bound allows; the page says why."""

AS_LISTS = {"icarl_herding", "icarl_memory"}
"""Golden files of whole numbers that tests compare as lists, where nothing is noted."""

ALL = read_all()


def matrices(values: float, *seeds: float) -> tuple[AccuracyMatrix, ...]:
    """A matrix per seed, whose cells differ from `values` by what the seed says, in points."""
    table = np.full((3, 2), values)
    return tuple(AccuracyMatrix(("a", "b"), table + seed / 100) for seed in seeds)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.method)
def test_implementations_differ_no_more_than_the_bound_allows(one: Matrices) -> None:
    assert len(one.released) == 3
    assert one.comparable
    assert one.met == (one.method not in BEYOND)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.method)
def test_the_matrices_are_of_the_same_tasks_and_the_same_model(one: Matrices) -> None:
    first = one.released[0]
    for matrix in (*one.released, *one.own):
        assert matrix.tasks == first.tasks
        assert matrix.complete
        np.testing.assert_allclose(matrix.values[0], first.values[0], atol=5.1e-4)


def test_the_runs_are_those_of_the_study() -> None:
    study = load_yaml((ROOT / "experiments/studies/parity.yaml").read_text("utf-8"))
    planned = {(p[0].method.name, p[0].seed, p[0].fingerprint()) for p in sweep(study)}
    assert len(planned) == 12
    found = {(r.method.name, r.seed, r.config_hash) for one in ALL for r in one.results}
    assert found <= planned


def test_no_recipe_changes_the_study() -> None:
    """Every setting that the recipes of its methods set on `mini` is named."""
    study = load_yaml((ROOT / "experiments/studies/parity.yaml").read_text("utf-8"))
    for block in study["grid"]:
        (method,) = block["methods"]
        settings, cls = config.resolve(method, "mini")
        assert {f"method.{name}" for name in cls.schema()} <= block.keys()
        named = study["train"].keys() | {key.removeprefix("train.") for key in block}
        assert set(settings.train.model_dump()) - named <= {"epochs", "momentum"}


def test_the_page_says_what_the_files_say() -> None:
    assert page.PAGE.read_text("utf-8") == page.renewed(), "run `make docs`"


def test_every_golden_file_was_measured() -> None:
    measured = {name for rows in page.measured().values() for row in rows for name in row["golden"]}
    files = {path.stem for path in page.GOLDEN.glob("*.safetensors")}
    assert files - measured == page._unofficial() | AS_LISTS, "run `make parity`"
    assert (FOLDER / "golden.json").exists()


def test_implementations_that_differ_by_a_seed_keep_the_bound_and_others_do_not() -> None:
    alike = Matrices("alike", matrices(0.5, 0, 1, 2), matrices(0.5, 0, 1, 2), ())
    assert alike.seeds_released == pytest.approx(4 / 3)
    assert alike.between == pytest.approx(8 / 9)
    assert alike.met
    apart = Matrices("apart", matrices(0.5, 0, 1, 2), matrices(0.6, 0, 1, 2), ())
    assert apart.between == pytest.approx(10)
    assert apart.ratio == pytest.approx(7.5)
    assert not apart.met
    assert apart.splits() == (1, 10)
    assert apart.offset() == pytest.approx(10)
    assert apart.largest()[0] == pytest.approx(10)


def test_one_seed_cannot_be_compared() -> None:
    assert not Matrices("one", matrices(0.5, 0, 1), matrices(0.5, 0), ()).comparable
