"""What is searched: ranges, choices, and what recipes declare."""

import math

import pytest

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.registry import MethodRecipe
from clbench.tuning.space import LR, MOST, RATE, Choice, Range, space_of

MINI = registry.benchmark("mini")


def test_points_of_a_log_range_are_even_in_the_logarithm() -> None:
    values = [Range(1e-4, 1.0, log=True).at(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def test_a_choice_gives_every_value_the_same_share() -> None:
    choice = Choice(("a", "b", "c", "d"))
    assert [choice.at(i / 8) for i in range(9)] == [*"aabbccddd"]


def test_a_range_grows_by_a_quarter_of_its_first_width_beyond_the_outermost_value() -> None:
    first = Range(1e-4, 1.0, log=True)
    below = first.widened(1e-3, [1e-3, 1e-2, 1e-1])
    assert below is not None
    assert (below.low, below.high) == (1e-5, 1e-3)
    grown = first.spanning(below)
    assert (grown.low, grown.high) == (1e-5, 1.0)
    again = grown.widened(1e-5, [1e-5, 1e-2])
    assert again is not None
    assert again.low == 1e-6, "a quarter of the first width, not of the present one"
    above = Range(2.0, 6.0).widened(5.0, [3.0, 5.0])
    assert above is not None
    assert (above.low, above.high) == (5.0, 7.0)


def test_a_range_does_not_grow_where_the_best_lies_between_others_or_at_a_limit() -> None:
    assert Range(0.0, 1.0).widened(0.5, [0.2, 0.5, 0.9]) is None
    assert Range(0.0, 1.0, limits=(0.0, 1.0)).widened(0.9, [0.2, 0.9]) is None
    some = Range(0.2, 0.9, limits=(0.0, 1.0)).widened(0.9, [0.2, 0.9])
    assert some is not None
    assert some.high == 1.0


def test_a_value_is_inside_if_others_on_both_sides_were_tried() -> None:
    tried = [0.2, 0.5, 0.9]
    assert Range(0.0, 1.0).edge(0.5, tried) == ""
    assert Range(0.0, 1.0).edge(0.9, tried) == "no larger value was tried"
    assert Range(0.0, 1.0).edge(0.2, tried) == "no smaller value was tried"
    bounded = Range(0.0, 1.0, limits=(0.0, 1.0))
    assert bounded.edge(1.0, [*tried, 1.0]) == "values end at 1"
    assert bounded.edge(0.9, tried) == "values end at 1", "nor is there any beyond"
    assert Choice((1, 2, 3)).edge(2, [2]) == ""
    assert Choice((1, 2, 3)).edge(1, [1, 2, 3]) == "the first of the list"
    assert Choice((1, 2, 3)).edge(3, [1, 2, 3]) == "the last of the list"
    assert Choice(([0], [0, 1], [2])).edge([0, 1], []) == "", "values may be lists"


@pytest.mark.parametrize("name", registry.method_names())
def test_every_recipe_declares_a_space_of_the_same_size_at_most(name: str) -> None:
    cls = registry.method(name)
    for benchmark in ("mini", "mtil"):
        space = space_of(cls, registry.benchmark(benchmark))
        assert (LR in space) == ("trains-nothing" not in cls.traits)
        assert len(space.keys() - {LR}) <= MOST
        for key, dimension in space.items():
            values = [dimension.at(share) for share in (0.0, 0.5, 1.0)]
            assert cls(**{key.removeprefix("method."): v for v in values if key != LR})
        if isinstance(rate := space.get(LR), Range):
            ratio = rate.high / rate.low
            assert math.isclose(ratio, RATE.high / RATE.low), "no method has a wider range"


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"method.rnk": [1, 2]}, "did you mean 'method.rank'"),
        ({"train.steps": [1, 2]}, "unknown key of 'search'"),
        ({"method.rank": 8}, "expected a list of values or"),
        ({"method.rank": {"low": 1}}, "expected a list of values or"),
        ({"method.rho": {"low": 0.5, "high": 2.0}}, "no range within its bounds"),
        ({"method.rho": {"low": 0.9, "high": 0.5}}, "no range within its bounds"),
        ({"train.lr": {"low": 0.0, "high": 1.0, "log": True}}, "no range within its bounds"),
        (
            {"method.rank": [1, 2], "method.rho": [0.5, 1.0], "method.alpha": [1.0, 2.0]},
            "may add 2 dimensions",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_named(
    search: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(cls: type[Method]) -> MethodRecipe:
        return MethodRecipe(cls.name, search=search)

    monkeypatch.setattr(registry, "method_recipe", recipe)
    with pytest.raises(ClbenchError, match=message):
        space_of(registry.method("nusa"), MINI)
