"""Which cells of the accuracy matrix are tested: those that can have changed."""

import pytest

from clbench import api
from clbench.core.method import Method
from clbench.core.results.correctness import read_rows
from clbench.engine import testing

QUICK = {"train.steps": 2}


def run(tmp_path, method: str, benchmark: str = "mini", **settings):
    return api.run(
        method, benchmark, runs_dir=tmp_path, settings=QUICK | settings, quick=True, quiet=True
    )


@pytest.mark.slow
def test_zero_shot_is_tested_once(tmp_path, tested):
    result = run(tmp_path, "zeroshot")
    assert tested == [(0, list(range(11)))]
    assert (result.matrix.values == result.matrix.values[0]).all()


def test_zero_shot_is_not_tested_where_an_earlier_run_has_its_row(tmp_path, tested):
    run(tmp_path, "zeroshot", first_tasks=2)
    assert tested == [(0, [0, 1])]
    tested.clear()
    run(tmp_path, "zeroshot", first_tasks=2, seed=1)
    assert tested == []


def test_class_incremental_rows_have_other_candidates_each_time(tmp_path, tested):
    run(tmp_path, "zeroshot", "mini-cil-10step", first_tasks=4)
    assert tested == [(t, list(range(t))) for t in range(1, 5)]


@pytest.mark.slow
def test_methods_that_train_are_tested_after_every_task(tmp_path, tested):
    run(tmp_path, "lora")
    assert tested == [(learned, list(range(11))) for learned in range(12)]


def test_small_tasks_are_tested_together_with_the_same_answers(tmp_path, monkeypatch):
    sizes = []
    classify = Method.classify

    def noting(self, images, candidates):
        sizes.append((len(images), len(candidates)))
        return classify(self, images, candidates)

    monkeypatch.setattr(Method, "classify", noting)
    small = {"first_tasks": 3, "train.epochs": 0.1, "train.lr": 1e-3}
    rows = []
    for folder, most in (("together", testing.SMALL), ("apart", 0)):
        monkeypatch.setattr(testing, "SMALL", most)
        result = run(tmp_path / folder, "lora", "mini-long", **small)
        rows.append(read_rows(result.path / "result.json"))
    assert sizes == [(24, 12)] * 3 + [(8, 4)] * 9
    assert rows[0].keys() == rows[1].keys() == set(range(4))
    for together, apart in zip(rows[0].values(), rows[1].values(), strict=True):
        assert list(together) == list(apart)
        assert all((together[task] == apart[task]).all() for task in together)
