"""Which settings are asked for."""

import math
from collections.abc import Callable

import pytest

from clbench.tuning.search import BLOCK, FIRST, Search, Values
from clbench.tuning.space import RATE, Choice, Range, Space

Reached = Callable[[Values], float | None]


def searched(space: Space, budget: int, reached: Reached) -> Search:
    search = Search(space, budget)
    while values := search.ask():
        search.tell(values, [reached(value) for value in values])
    return search


def peak(rate: float) -> Reached:
    """A score whose only optimum is at a learning rate."""
    return lambda values: -abs(math.log(values["train.lr"] / rate))


def test_methods_with_other_dimensions_try_the_same_learning_rates() -> None:
    one = Search({"train.lr": RATE}, 8).ask()
    three = Search({"train.lr": RATE, "a": Range(0, 1), "b": Choice((1, 2))}, 8).ask()
    assert [v["train.lr"] for v in one] == [v["train.lr"] for v in three]


def test_the_first_eight_points_spread_over_every_dimension() -> None:
    asked = Search({"a": Range(0, 1), "b": Range(0, 1), "c": Range(0, 1)}, 8).ask()
    assert len(asked) == FIRST
    for name in "abc":
        assert sorted(values[name] for values in asked) == pytest.approx(
            [(2 * place + 1) / 16 for place in range(8)], abs=1e-4
        )


def test_the_first_eight_points_pair_no_high_rate_with_one_kind_of_other_values() -> None:
    asked = Search({"train.lr": RATE, "a": Range(0, 1)}, 8).ask()
    quarters = [(v["train.lr"] >= 1e-3, v["a"] >= 0.5) for v in asked]
    assert {quarters.count((high, large)) for high in (0, 1) for large in (0, 1)} == {2}


def test_no_method_gets_more_trials_than_the_budget_wherever_its_optimum_lies() -> None:
    for rate in (1e-7, 1e-3, 10.0):
        for budget in (1, 5, 8, 10, 16):
            assert len(searched({"train.lr": RATE}, budget, peak(rate)).trials) == budget


def test_a_larger_budget_adds_to_a_smaller_one() -> None:
    small, large = (searched({"train.lr": RATE}, n, peak(1e-3)).trials for n in (8 + BLOCK, 24))
    assert large[: len(small)] == small


def test_an_optimum_inside_leaves_the_range_as_it_was_declared() -> None:
    search = searched({"train.lr": RATE}, 16, peak(7e-4))
    assert search.extended == []
    assert search.space == {"train.lr": RATE}
    assert search.edges(search.best) == {"train.lr": ""}


def test_the_range_moves_to_an_optimum_outside() -> None:
    search = searched({"train.lr": RATE}, 16, peak(5e-6))
    assert search.extended == ["train.lr"]
    rates = [trial.values["train.lr"] for trial in search.trials]
    assert min(rates[:FIRST]) > RATE.low
    assert min(rates) < 5e-6
    assert search.edges(search.best) == {"train.lr": ""}
    chosen = search.trials[search.ranked()[0]].values["train.lr"]
    assert 2e-6 < chosen < 1.3e-5


def test_a_range_that_was_not_extended_far_enough_is_told() -> None:
    search = searched({"train.lr": RATE}, 12, peak(1e-9))
    assert search.edges(search.best) == {"train.lr": "no smaller value was tried"}
    highest = max(range(12), key=lambda n: search.trials[n].values["train.lr"])
    assert search.edges(highest) == {"train.lr": "no larger value was tried"}


def test_choices_at_an_end_are_told_and_not_extended() -> None:
    space: Space = {"train.lr": RATE, "rank": Choice((2, 4, 8))}
    search = searched(space, 16, lambda v: v["rank"] + peak(7e-4)(v))  # type: ignore[operator]
    assert search.space["rank"] == Choice((2, 4, 8))
    assert search.edges(search.best)["rank"] == "the last of the list"


def test_diverged_trials_are_never_the_best_and_send_the_search_to_lower_rates() -> None:
    search = searched(
        {"train.lr": RATE}, 12, lambda v: None if v["train.lr"] > 1.5e-5 else v["train.lr"]
    )
    best = search.best
    assert best is not None
    assert search.trials[best].values["train.lr"] <= 1.5e-5
    hopeless = searched({"train.lr": RATE}, 12, lambda v: None)
    assert hopeless.best is None
    assert hopeless.extended == ["train.lr"]
    assert hopeless.edges(hopeless.best) == {"train.lr": "all diverged"}


def test_what_has_nothing_to_search_has_one_trial() -> None:
    assert searched({}, 16, lambda v: 0.5).trials[0].values == {}
    assert len(searched({}, 16, lambda v: 0.5).trials) == 1


def test_equal_scores_are_ranked_by_who_came_first() -> None:
    assert searched({"train.lr": RATE}, 8, lambda v: 0.5).ranked() == list(range(8))


@pytest.mark.parametrize("budget", [1, 8, 16])
def test_the_same_answers_lead_to_the_same_questions(budget: int) -> None:
    space: Space = {"train.lr": RATE, "rho": Range(0.5, 1.0, limits=(0.0, 1.0))}
    one, two = (searched(space, budget, lambda v: v["rho"]).trials for _ in range(2))
    assert one == two
