"""What a user sees while a grid is made."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from clbench.launch.cells import Cell, Event, Outcome, Resources
from clbench.launch.forecast.estimates import Estimate, Forecast
from clbench.launch.view import Tally, forecast_table, make_view
from tests.launch.conftest import make_cell


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def tally(clock: list[float]) -> Tally:
    """Five cells, one of them complete, two at a time."""
    return Tally(5, 1, 2, lambda: clock[0])


def test_the_time_left_is_that_of_cells_of_the_same_method(
    tally: Tally, clock: list[float]
) -> None:
    fast, slow, again = (make_cell(Path("r"), n, i) for i, n in enumerate(("good", "slow", "good")))
    tally.event(Event(fast), 1)
    tally.event(Event(slow), 1)
    assert tally.eta() is None, "nothing is known"
    clock[0] = 10
    tally.event(Event(fast, Outcome.DONE), 1)
    clock[0] = 100
    tally.event(Event(slow, Outcome.DONE), 1)
    tally.event(Event(again), 1)
    assert tally.line() == "3 of 5 done, 1 running, 1 waiting, about 32 s left"
    assert tally.eta() == (10 + 55) / 2
    clock[0] = 104
    assert tally.eta() == (6 + 55) / 2


def test_nothing_is_left_when_the_last_has_failed(tally: Tally) -> None:
    for number in range(4):
        cell = make_cell(Path("r"), "good", number)
        tally.event(Event(cell), 3)
        tally.event(Event(cell, Outcome.FAILED, 1), 2)
        tally.event(Event(cell), 2)
        tally.event(Event(cell, Outcome.FAILED, 1), 0)
    assert (tally.done, tally.failed, tally.waiting) == (1, 4, 0)
    assert tally.eta() == 0.0


def shown(tally: Tally, terminal: bool, events: list[tuple[Event, int]]) -> list[str]:
    console = Console(file=io.StringIO(), width=150, force_terminal=terminal)
    assert isinstance(console.file, io.StringIO)
    with make_view(console, tally, quiet=False) as view:
        for event, left in events:
            view.event(event, left)
    return console.file.getvalue().splitlines()


def test_lines_tell_every_event(tally: Tally, cell: Callable[..., Cell]) -> None:
    one = cell("good")
    events = [
        (Event(one, where="1 thread"), 2),
        (Event(one, Outcome.FAILED, -9), 1),
        (Event(one), 1),
        (Event(one, Outcome.PREEMPTED, 143), 1),
        (Event(one), 1),
        (Event(one, Outcome.DONE, 0), 1),
    ]
    title = "good on toy, seed 0"
    assert shown(tally, False, events) == [
        f"start   {title}, 1 thread  [1 of 5 done, 1 running, 3 waiting]",
        f"failed  {title}, killed by SIGKILL, is tried again (attempts left: 1)  "
        "[1 of 5 done, 0 running, 4 waiting]",
        f"start   {title}  [1 of 5 done, 1 running, 3 waiting]",
        f"stopped {title}, is put back  [1 of 5 done, 0 running, 4 waiting]",
        f"start   {title}  [1 of 5 done, 1 running, 3 waiting]",
        f"done    {title}, 0 s  [2 of 5 done, 0 running, 3 waiting]",
    ]


def test_a_terminal_shows_what_runs(tally: Tally, cell: Callable[..., Cell]) -> None:
    one, two = cell("good"), cell("good", 1)
    text = "\n".join(
        shown(tally, True, [(Event(one), 1), (Event(two), 1), (Event(one, Outcome.DONE, 0), 1)])
    )
    assert "done    good on toy, seed 0" in text
    assert two.key in text
    assert "2 of 5 done, 1 running, 2 waiting" in text


def test_quiet_shows_nothing(tally: Tally, cell: Callable[..., Cell]) -> None:
    console = Console(file=io.StringIO())
    with make_view(console, tally, quiet=True) as view:
        view.event(Event(cell("good")), 1)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_a_forecast_tells_cells_states_and_costs(cell: Callable[..., Cell]) -> None:
    cells = [cell("good", number) for number in range(4)]
    cost = Estimate(60.0, 2_000_000_000, 5_000_000, "other seeds (2)")
    states = ["complete", "partial", "missing", "missing"]
    forecast = Forecast(cells, states, [None, cost, cost, None], Resources(jobs=2))
    table, whole = forecast_table(forecast)
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[1].split() == ["good", "on", "toy,", "seed", "0", "complete"]
    assert "60 s" in lines[2]
    assert "2.0 GB" in lines[2]
    assert whole == (
        "4 runs, 1 complete, 3 to make, 2 at a time: about 2 min, 4.0 GB of memory, 15.0 MB of "
        "disk (1 taken for the mean of the others)"
    )
